"""Empty, migrated PostgreSQL databases for tests. Emptying the database of an earlier test is many times faster than copying a new one."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

TEMPLATE = "template_interlock"
_OTHER_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
# Whatever a test may change beside rows: tables, columns, rights, constraints, triggers, functions, schemas and settings.
_STRUCTURE = """
SELECT (SELECT string_agg(concat(oid, relacl), ',' ORDER BY oid) FROM pg_class WHERE oid >= 16384),
       (SELECT string_agg(concat(attrelid, attnum, atttypid, attnotnull, atthasdef), ',' ORDER BY attrelid, attnum)
        FROM pg_attribute WHERE attrelid >= 16384),
       (SELECT string_agg(oid::text, ',' ORDER BY oid) FROM pg_constraint WHERE oid >= 16384),
       (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal),
       (SELECT count(*) FROM pg_proc WHERE oid >= 16384),
       (SELECT string_agg(concat(nspname, nspacl), ',' ORDER BY oid) FROM pg_namespace),
       (SELECT count(*) FROM pg_db_role_setting JOIN pg_database ON setdatabase = pg_database.oid WHERE datname = current_database()),
       (SELECT string_agg(version_num, ',') FROM alembic_version),
       (SELECT string_agg(name, ',' ORDER BY name) FROM epochs)
"""


class PostgresDatabases:
    """Lends databases of one server, which are copies of its template."""

    def __init__(self, template_url: str) -> None:
        self._url = make_url(template_url)
        self._free: list[str] = []
        with _connect(self._url) as connection:
            self._structure = _read_structure(connection)
            tables = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars()
            emptied = (f"DELETE FROM {name}" for name in sorted(tables) if name not in ("alembic_version", "epochs"))
            self._empty = "; ".join(["SET session_replication_role = replica", *emptied, "UPDATE epochs SET value = 0"])

    @contextmanager
    def lend(self) -> Iterator[str]:
        """Yields the URL of an empty database."""
        name = self._free.pop() if self._free else self._copy_template()
        yield self._url.set(database=name).render_as_string(hide_password=False)
        if self._was_emptied(name):
            self._free.append(name)

    @contextmanager
    def lend_without_tables(self) -> Iterator[str]:
        """Yields the URL of a new database that nothing has migrated."""
        name = f"test_{uuid.uuid4().hex}"
        with _connect(self._url.set(database="postgres")) as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE template0"))
        yield self._url.set(database=name).render_as_string(hide_password=False)

    def _copy_template(self) -> str:
        name = f"test_{uuid.uuid4().hex}"
        with _connect(self._url.set(database="postgres")) as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
        return name

    def _was_emptied(self, name: str) -> bool:
        """Empties a database, unless it is still in use or gone, or a test has changed more than rows."""
        try:
            with _connect(self._url.set(database=name)) as connection:
                if connection.execute(text(_OTHER_SESSIONS)).scalar_one() or _read_structure(connection) != self._structure:
                    return False
                connection.exec_driver_sql(self._empty)
        except DBAPIError:
            return False
        return True


def _read_structure(connection: Connection) -> tuple[Any, ...]:
    return tuple(connection.execute(text(_STRUCTURE)).one())


@contextmanager
def _connect(url: URL) -> Iterator[Connection]:
    engine = create_engine(url.set(drivername="postgresql+psycopg"), isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
