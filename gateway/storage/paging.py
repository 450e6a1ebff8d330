"""Errors of lists that are read one page at a time."""


class BadCursor(Exception):
    """The cursor is not one that a page of this list returned."""
