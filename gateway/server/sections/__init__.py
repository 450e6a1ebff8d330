"""Sections of the settings that are longer than a few lines."""
