"""MCP servers of the gateway's own: their tools are functions of the gateway, called with the asker's rights."""
