"""Texts of pages: what others wrote, made fit to be shown, and the words of the console itself."""
