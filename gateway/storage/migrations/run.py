"""Migrates a database to the schema of this version, with Alembic."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, inspect, text

from gateway.storage.migrations import USABLE_FROM
from gateway.storage.tables import schema_bounds

LOCK_KEY = 4_242_001  # advisory lock, so that processes that start together do not both migrate


class BrokenReferences(Exception):
    """A migration left rows that refer to others which are not there; nothing of it was kept."""


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Applies what is missing, in one transaction, and records which older code works on the schema."""
    _run(engine, command.upgrade, revision, USABLE_FROM)


def downgrade(engine: Engine, revision: str) -> None:
    """Takes migrations back; loses what their tables held."""
    _run(engine, command.downgrade, revision)


def _run(engine: Engine, command: object, revision: str, usable_from: str = "") -> None:
    with as_file(files("gateway.storage.migrations")) as folder, _migrating(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK_KEY})"))
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.attributes["connection"] = connection
        assert callable(command)
        command(config, revision)
        if usable_from and inspect(connection).has_table(schema_bounds.name):
            connection.execute(schema_bounds.delete())
            connection.execute(schema_bounds.insert().values(id=1, usable_from=usable_from))


@contextmanager
def _migrating(engine: Engine) -> Iterator[Connection]:
    """One transaction. On SQLite without foreign keys, since a table that is made anew is dropped; they are checked before the commit.

    Raises BrokenReferences.
    """
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            yield connection
        return
    with engine.connect() as connection:
        execute = connection.connection.cursor().execute
        execute("PRAGMA foreign_keys=OFF")  # has no effect within a transaction
        try:
            with connection.begin():
                yield connection
                if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
                    raise BrokenReferences(f"rows refer to others that are not there: {sorted({str(row[0]) for row in broken})}")
        finally:
            execute("PRAGMA foreign_keys=ON")
