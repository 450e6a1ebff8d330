"""Queries with `?` marks, which run before each ruling on a declared effect and skip the query builder."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row


def run_query(connection: Connection, statement: str, *values: Any) -> Iterable["Row[Any]"]:
    """The rows of a query, in the marks of the connection's driver."""
    return connection.exec_driver_sql(_with_marks_of(connection.dialect.name, statement), values)


@cache
def _with_marks_of(dialect: str, statement: str) -> str:
    return statement if dialect == "sqlite" else statement.replace("?", "%s")
