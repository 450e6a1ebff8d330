"""Speed of the gateway beside the same calls without it: `python -m tests.bench`."""
