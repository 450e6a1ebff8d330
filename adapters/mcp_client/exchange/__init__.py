"""Requests to MCP servers over HTTP, and the messages and questions that a server sends before its response."""
