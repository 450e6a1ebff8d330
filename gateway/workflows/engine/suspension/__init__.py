"""What a run waits for and what it holds meanwhile, also while no process works on it."""
