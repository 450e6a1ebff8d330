"""Redaction of secrets and of upstreams' internals in texts for callers."""
