"""Clients of frameworks, each with a fake model in an environment of its own, against a gateway with a tool server."""
