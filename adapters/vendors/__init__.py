"""Adapters for agents with their vendor's own API, one module or folder for each vendor."""
