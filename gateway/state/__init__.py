"""State that agents share: the board of values by key, the subjects that these values are about, and memory."""
