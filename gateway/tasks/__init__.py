"""Tasks: their log, their turns at agents, and everything that is read from them."""
