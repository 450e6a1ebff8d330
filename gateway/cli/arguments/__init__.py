"""Arguments that several commands take: days, and names that the shell completes."""
