"""Backups: one archive of the database and the home folder at one moment, and its restoration into an empty place."""
