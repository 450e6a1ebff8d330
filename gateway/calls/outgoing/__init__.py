"""Calls of agents and servers: their credentials and deadlines, what they are sent to, and their spans and figures."""
