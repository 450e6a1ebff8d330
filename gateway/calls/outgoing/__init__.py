"""Builds calls of agents and servers with their credentials and deadlines, and names what they are sent through."""
