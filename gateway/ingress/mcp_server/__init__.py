"""The MCP server: tools of registered servers, and registered agents, for MCP clients of both eras."""
