"""Questions to the person at an MCP client, from agents, servers and the gateway."""
