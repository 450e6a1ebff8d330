"""How large the database and its tables are."""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from msgspec import Struct
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from gateway.storage.database import Database, ReadFailed

AGES: Final = {  # tables -> the column of their rows' age, where an index makes its lowest value cheap
    "tasks": "updated",
    "audit": "at",
    "costs": "at",
    "approvals": "created",
    "workflow_runs": "started",
    "workflow_events": "at",
    "notices": "at",
    "state_changes": "at",
    "claims": "ended",
    "mcp_events": "at",
}
_SQLITE_BYTES: Final = (
    "SELECT s.tbl_name AS name, SUM(d.pgsize) AS bytes FROM dbstat d JOIN sqlite_schema s ON s.name = d.name "
    "WHERE d.aggregate = TRUE GROUP BY s.tbl_name"
)
_POSTGRES_SIZES: Final = (
    "SELECT c.relname AS name, pg_total_relation_size(c.oid) AS bytes, CAST(c.reltuples AS BIGINT) AS rows FROM pg_class c "
    "WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace"
)
_GROWN: Final = (  # tables that autovacuum has not analyzed since they were nearly empty
    "SELECT c.relname FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid "
    "WHERE c.relnamespace = current_schema()::regnamespace AND s.n_mod_since_analyze >= 500 "
    "AND s.n_live_tup > 10 * GREATEST(c.reltuples, 0)"
)
_EXACT_BELOW: Final = 10_000  # estimated rows of PostgreSQL, below which they are counted
log = structlog.get_logger()


class TableSize(Struct, frozen=True):
    """One table with its indexes. `rows` is an estimate of PostgreSQL where `is_estimate`; `oldest` is microseconds since 1970."""

    table: str
    rows: int
    is_estimate: bool
    bytes: int
    oldest: int | None


def read_database_bytes(connection: Connection) -> int:
    """Returns the size of the whole database, free pages included."""
    if connection.dialect.name == "sqlite":
        pages, size = (connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size"))
        return int(pages) * int(size)
    return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())


def read_free_bytes(connection: Connection) -> int | None:
    """Returns the size of the free pages of SQLite, which new rows fill first; None on PostgreSQL."""
    if connection.dialect.name != "sqlite":
        return None
    pages, size = (connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("freelist_count", "page_size"))
    return int(pages) * int(size)


def read_table_sizes(connection: Connection) -> list[TableSize]:
    """Returns all tables, the largest first. Reads the whole file of SQLite."""
    is_sqlite = connection.dialect.name == "sqlite"
    rows = connection.execute(text(_SQLITE_BYTES if is_sqlite else _POSTGRES_SIZES)).all()
    sizes = [_measure(connection, row.name, row.bytes, -1 if is_sqlite else row.rows) for row in rows if not row.name.startswith("sqlite_")]
    return sorted(sizes, key=lambda size: size.bytes, reverse=True)


def _measure(connection: Connection, name: str, size: int, estimate: int) -> TableSize:
    is_estimate = estimate >= _EXACT_BELOW
    count = estimate if is_estimate else connection.execute(text(f'SELECT COUNT(*) FROM "{name}"')).scalar_one()  # noqa: S608 (a table's name)
    oldest = connection.execute(text(f"SELECT MIN({AGES[name]}) FROM {name}")).scalar() if name in AGES else None  # noqa: S608 (our own tables)
    return TableSize(name, int(count), is_estimate, int(size), oldest)


class SizeWatch:
    """Warns of a large database, so that its growth surprises no one."""

    def __init__(self, database: Database, warn_bytes: int, keeps_all: Callable[[], bool]) -> None:
        """`keeps_all`: whether the settings let the database grow without end."""
        self._database = database
        self._warn_bytes = warn_bytes
        self._keeps_all = keeps_all

    async def run_once(self) -> None:
        size = await self._database.read(read_database_bytes)
        if size >= self._warn_bytes:
            todo = "set retention.days, or see interlock db size" if self._keeps_all() else "interlock db size shows what it consists of"
            log.warning("database_large", bytes=size, warned_from=self._warn_bytes, todo=todo)


class GrowthStatistics:
    """Renews PostgreSQL's statistics of tables that have grown a lot since the last ones.

    PostgreSQL keeps the plans of prepared statements. One that was made while its table was empty reads the whole table later on, until
    autovacuum analyzes it. ANALYZE takes some milliseconds, blocks neither reads nor writes, and has all plans made anew.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def run_once(self) -> list[str]:
        """Returns the tables that were analyzed; none on SQLite. Raises ReadFailed."""
        if self._engine.dialect.name == "sqlite":
            return []
        try:
            return await asyncio.to_thread(self._analyze)
        except SQLAlchemyError as error:
            raise ReadFailed("the database did not answer") from error

    def _analyze(self) -> list[str]:
        with self._engine.connect() as opened:
            connection = opened.execution_options(isolation_level="AUTOCOMMIT")
            names = [str(name) for name in connection.execute(text(_GROWN)).scalars()]
            for name in names:
                connection.execute(text(f'ANALYZE "{name}"'))
        if names:
            log.info("tables_analyzed", tables=names)
        return names
