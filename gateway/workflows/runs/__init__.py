"""Runs as rows: what a run was started with, the journal of its effects, what it waits for, and the checkpoints that people answer."""
