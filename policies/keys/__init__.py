"""Signing keys, published keys, and strict verification of JWTs."""
