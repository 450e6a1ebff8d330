"""/api/state, /api/claims and /api/subjects: the board of shared state, claims on subjects, and all that is known of a subject."""
