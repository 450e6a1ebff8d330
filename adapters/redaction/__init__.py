"""Removal of secrets and of the upstream's internals from what callers may read."""
