"""Runs a document: its control flow and data flow. What touches the world goes through the port `Effects`."""
