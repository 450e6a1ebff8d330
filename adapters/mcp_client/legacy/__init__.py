"""MCP up to revision 2025-11-25: sessions that begin with `initialize`."""
