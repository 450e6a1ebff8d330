"""Builds the checks of callers: token verification, rulings, the sign-in of people, and their routes."""
