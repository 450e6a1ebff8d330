"""Errors of lists that are read one page at a time."""


class BadCursor(Exception):
    """The cursor is not one that a page of this list returned."""


def parse_place(cursor: str) -> tuple[int, str]:
    """The moment, in microseconds since 1970, and the id of the last row of a page. Raises BadCursor."""
    at, _, last = cursor.partition(".")
    if not (last and at.isascii() and at.isdigit() and len(at) < 19):
        raise BadCursor
    return int(at), last


def format_place(at: int, last: str) -> str:
    """The cursor of the page after a row."""
    return f"{at}.{last}"
