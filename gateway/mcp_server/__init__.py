"""The MCP door: upstream servers' tools and registered agents, as tools of one MCP server."""
