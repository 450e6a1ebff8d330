"""The MCP envelope: messages, headers, sessions, request state and errors."""
