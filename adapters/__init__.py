"""Adapters: the agents and servers that the gateway calls, each in its own protocol."""
