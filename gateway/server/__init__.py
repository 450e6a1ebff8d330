"""One running process: the application, its settings, its periodic work, its start and stop."""
