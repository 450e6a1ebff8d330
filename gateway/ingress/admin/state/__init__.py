"""/api/state: the board of shared state."""
