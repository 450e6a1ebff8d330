"""The database at one moment: what a backup records about it, and its copy in a file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, func, inspect, select, text

from gateway.storage.files.backups.archive import BackupUnusable, Report
from gateway.storage.files.backups.part_names import POSTGRES, SQLITE
from gateway.storage.files.backups.postgres_tools import PostgresTools
from gateway.storage.files.backups.sqlite_copy import copy_database
from policies.tables import audit_records


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """The revision of the schema, the number of tables, and the last sequence number of each chain of the audit."""

    revision: str
    tables: int
    audit: dict[str, int]


class DatabaseSnapshot:
    """A database as one open transaction sees it."""

    def __init__(self, connection: Connection, tools: PostgresTools) -> None:
        self._connection = connection
        self._tools = tools
        self.kind = connection.dialect.name
        self.state = read_state(connection)

    def copy_to(self, target: Path, report: Report) -> None:
        """Writes the database into a file. Raises BackupUnusable."""
        if self.kind == SQLITE:
            copy_database(self._connection, target, report)
            return
        name = self._connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
        self._tools.dump(name, tables_of(self._connection), target, report)


@contextmanager
def open_snapshot(engine: Engine, database_url: str, environment: Mapping[str, str]) -> Iterator[DatabaseSnapshot]:
    """Begins the transaction whose state is backed up. Raises BackupUnusable, and SQLAlchemyError for an unreachable database."""
    tools = PostgresTools(database_url, environment)
    if engine.dialect.name == POSTGRES:
        tools.find("pg_dump")
    with engine.connect() as connection:
        if engine.dialect.name == POSTGRES:
            connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))  # pg_dump may take long
        else:
            connection = connection.execution_options(interlock_read=True)
        yield DatabaseSnapshot(connection, tools)


def read_state(connection: Connection) -> DatabaseState:
    """Raises BackupUnusable for a database without the gateway's tables."""
    if not inspect(connection).has_table("alembic_version"):
        raise BackupUnusable("the database is empty: no gateway has started with it", "is database.url right? interlock check")
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    chains = connection.execute(select(audit_records.c.chain, func.max(audit_records.c.seq)).group_by(audit_records.c.chain))
    return DatabaseState(str(revision), len(tables_of(connection)), {str(chain): int(seq) for chain, seq in chains})


def tables_of(connection: Connection) -> list[str]:
    """Returns the names of all tables in the schema that the gateway uses."""
    return sorted(inspect(connection).get_table_names())
