"""OpenAPI documents as MCP servers: operations become tools, calls become HTTP requests."""
