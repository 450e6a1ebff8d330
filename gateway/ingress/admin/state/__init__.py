"""/api/state, /api/claims and /api/subjects: the board of shared state, who works on a subject, and all that is known of it."""
