"""The board: values by key, with versions, history, quotas and a feed of changes."""
