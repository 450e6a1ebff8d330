"""The engine: the adapter of workflows, which runs a document as the turn of a task, and what resumes suspended runs."""
