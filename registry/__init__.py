"""Who exists: agents, servers and their cards."""
