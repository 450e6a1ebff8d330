"""Whom we call, and in which language."""
