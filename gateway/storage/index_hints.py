"""Names the index by which SQLite reads a table, since SQLite has no figures of how many rows each index selects."""

from typing import Any, TypeVar

from sqlalchemy import Engine, Select, Table
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler

Query = TypeVar("Query", bound="Select[Any]")


class _HintingCompiler(SQLiteCompiler):
    """SQLAlchemy has hints for tables of other databases; SQLite's stand at the same place."""

    def get_from_hint_text(self, table: object, text: str | None) -> str | None:
        """Returns what stands behind the name of the table."""
        return text


def allow_index_hints(engine: Engine) -> None:
    """Makes an engine for SQLite heed `with_index`."""
    engine.dialect.statement_compiler = _HintingCompiler


def with_index(query: Query, table: Table, index: str) -> Query:
    """Returns a query that SQLite answers by this index of the table. PostgreSQL chooses by its figures."""
    return query.with_hint(table, f"INDEXED BY {index}", "sqlite")
