"""The turns of a task at its agent: run, paused for people, canceled."""
