"""Tries of agents' skills and servers' tools: a call like any other, by the session's person, shown while it goes on."""
