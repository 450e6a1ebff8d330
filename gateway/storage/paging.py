"""Lists that are read one page at a time."""

from collections.abc import Sequence
from typing import Any, TypeVar

Row = TypeVar("Row", bound=Any)


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


def first_page(rows: Sequence[Row], limit: int) -> tuple[list[Row], str | None]:
    """The first `limit` rows of `limit` + 1 at most, and the id of the last of them if there are more."""
    return list(rows[:limit]), rows[limit - 1].id if len(rows) > limit else None
