"""How well search mode finds the right one of many real operations."""
