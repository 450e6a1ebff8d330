"""Builds the checks of callers: token verification, rulings, and the sessions of people."""
