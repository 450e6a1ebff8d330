"""Lists that are read one page at a time: their cursors, and the index that each is read by.

SQLite has no figures of how many rows each index selects, so that queries of lists name theirs.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

from sqlalchemy import Select, Table
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

Row = TypeVar("Row", bound=Any)
Query = TypeVar("Query", bound="Select[Any]")
DRIVER: Final = "sqlite+hinted"  # of the URL of an engine that heeds `with_index`


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


class _HintingCompiler(SQLiteCompiler):
    """SQLAlchemy has hints for tables of other databases; SQLite's stand at the same place."""

    def get_from_hint_text(self, table: object, text: str | None) -> str | None:
        """Returns what stands behind the name of the table."""
        return text


class HintingDialect(SQLiteDialect_pysqlite):
    """SQLite with hints."""

    statement_compiler = _HintingCompiler
    supports_statement_cache = True


registry.register("sqlite.hinted", __name__, HintingDialect.__name__)


def with_index(query: Query, table: Table, index: str) -> Query:
    """Returns a query that SQLite answers by this index of the table. PostgreSQL chooses by its figures."""
    return query.with_hint(table, f"INDEXED BY {index}", "sqlite")
