"""The MCP door, file by file."""
