"""The MCP client: servers of both eras, over Streamable HTTP, HTTP+SSE and stdio."""
