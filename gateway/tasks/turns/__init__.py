"""One turn of an agent: its events become entries of the task's log."""
