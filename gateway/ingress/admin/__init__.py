"""The HTTP API under /api for operators and users."""
