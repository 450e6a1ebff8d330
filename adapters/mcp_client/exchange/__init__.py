"""One request to an MCP server over HTTP, and what the server sends and asks until it answers."""
