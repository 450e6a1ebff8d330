"""State that agents share: the board of values by key, and the subjects that these values are about."""
