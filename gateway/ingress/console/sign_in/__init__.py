"""How a browser gets a session: a one-time link now, and any other way that proves a person."""
