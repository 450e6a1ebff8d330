"""/api/state, /api/claims, /api/subjects and /api/memory: shared state, claims on subjects, views of subjects, and memory."""
