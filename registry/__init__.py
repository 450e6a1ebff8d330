"""The registry: agents, servers and their cards."""
