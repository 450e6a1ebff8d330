"""Adapters: clients for the agents and servers that the gateway calls, one for each protocol."""
