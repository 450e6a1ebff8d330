"""Health of agents and servers: checks, and which do not answer now."""
