"""What the jobs of one transaction keep: rows that wait for its end, and statements that are run at once."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError, SQLAlchemyError


class NotKept(Exception):
    """The database did not take the write. Nothing of it was kept, unless the connection broke just as it committed."""


class CommitBroke(Exception):
    """Whether it was kept is for the database to say."""


class Moves(NamedTuple):
    """How rows of a table change: each by its `keys`, which must name a row as it stands; `missed` is raised when they name none."""

    table: Table
    values: tuple[str, ...]
    keys: tuple[str, ...]
    missed: type[Exception]

    def statement(self, source: str) -> str:
        """The update, from rows of `source` whose columns are column1, column2, …: the values first, then the keys."""
        name, columns = self.table.name, [f"given.column{number}" for number in range(1, len(self.values) + len(self.keys) + 1)]
        sets = ",".join(f"{value}={given}" for value, given in zip(self.values, columns, strict=False))
        match = " AND ".join(f"{name}.{key}={given}" for key, given in zip(self.keys, columns[len(self.values) :], strict=True))
        return f"UPDATE {name} SET {sets} FROM ({source}) AS given WHERE {match}"  # noqa: S608 (names of our own tables)


Rows = Mapping[Table | Moves, Sequence[tuple[Any, ...]]]


class Keeper(Protocol):
    """Puts rows into a database: those that move first, then the others."""

    alone: bool  # whether it commits too, where no transaction has begun

    def put(self, connection: Connection, rows: Rows) -> None:
        """Raises what DBAPIError stands for, and the `missed` of rows that moved; where it commits, NotKept and CommitBroke too."""
        ...


class Batch:
    """One transaction under way. Rows that are only inserted or moved go in together, at its end or when somebody has to see them."""

    def __init__(self, connection: Connection, keeper: Keeper) -> None:
        self._connection = connection
        self._keeper = keeper
        self._rows: dict[Table | Moves, list[tuple[Any, ...]]] = {}
        self._begun = False

    @property
    def connection(self) -> Connection:
        """For statements other than plain inserts; sees every row added before."""
        self._begin()
        self.flush()
        return self._connection

    def add(self, table: Table, row: dict[str, Any]) -> None:
        self._rows.setdefault(table, []).append(tuple(map(row.get, names_of(table))))

    def move(self, moves: Moves, values: tuple[Any, ...]) -> None:
        """Changes one row, not later than `flush`, which raises `moves.missed` when it is not there as its keys say."""
        self._rows.setdefault(moves, []).append(values)

    def run(self, statement: str, values: tuple[Any, ...]) -> int:
        """Runs one statement at once, with `?` marks, and returns the number of rows it changed. Does not see rows just added."""
        self._begin()
        errors = self._connection.dialect.loaded_dbapi.Error
        cursor = self._connection.connection.cursor()
        try:
            cursor.execute(marked(self._connection, statement), values)
            return int(cursor.rowcount)
        except errors as error:
            raise DBAPIError.instance(statement, None, error, errors) from error
        finally:
            cursor.close()

    def flush(self) -> None:
        """Puts what waits into the transaction."""
        if self._rows:
            self._begin()
            rows, self._rows = self._rows, {}
            self._keeper.put(self._connection, rows)

    def keep(self) -> None:
        """Puts what waits, and commits. Raises as Keeper.put does."""
        if not self._begun and self._keeper.alone:
            if self._rows:
                self._keeper.put(self._connection, self._rows)
            return
        self.flush()
        try:
            self._connection.commit()
        except (SQLAlchemyError, OSError) as error:
            raise CommitBroke from error

    def _begin(self) -> None:
        """Raises NotKept."""
        if not self._begun:
            try:
                self._connection.begin()
            except SQLAlchemyError as error:
                raise NotKept("the database can't be reached") from error
            self._begun = True


@cache
def names_of(table: Table) -> tuple[str, ...]:
    return tuple(table.columns.keys())


def marked(connection: Connection, statement: str) -> str:
    """The statement with the marks that the driver knows."""
    return statement if connection.dialect.name == "sqlite" else statement.replace("?", "%s")
