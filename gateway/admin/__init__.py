"""The operators' and users' API under /api, one noun a file."""
