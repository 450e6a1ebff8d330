"""Finds agents: those that a search is for, and those that fit a message to the front door."""
