"""Clients of MCP up to revision 2025-11-25: their streams and the questions sent over them."""
