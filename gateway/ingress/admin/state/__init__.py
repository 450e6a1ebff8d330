"""/api/claims and /api/subjects: who works on a subject, what was done about it, and what holds it."""
