"""Clients that people sign in with: how they become known, their metadata documents, and their redirect URIs."""
