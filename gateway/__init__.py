"""Who calls us, and what we remember."""
