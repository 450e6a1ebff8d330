"""Builds the OAuth server: the sign-in of people, and the routes of tokens, metadata and account connections."""
