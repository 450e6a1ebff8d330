"""/api/state and /api/memory: the board of shared state, and what is remembered of people and of workflows."""
