"""The entries of a task's log, their A2A form, and their delivery to live subscribers."""
