"""Connections of MCP over which both sides send at any time: child processes and HTTP+SSE."""
