"""Builds the servers that the gateway offers itself: calculations, and the functions of its own."""
