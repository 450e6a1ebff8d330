"""Routes about agents, servers and virtual servers."""
