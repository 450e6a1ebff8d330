"""Notifications about changed lists and resources, for clients of both eras."""
