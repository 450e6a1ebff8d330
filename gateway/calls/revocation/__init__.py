"""Revocation: the kill switch, revoked grants, and the calls that they end."""
