"""The database: its size and growth, its write-ahead log, and what keeps PostgreSQL from working well."""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.cli.local import installation as home
from gateway.cli.local.doctor.kinds import DoctorFinding
from gateway.cli.local.doctor.machine import format_bytes

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from gateway.server.settings import Settings

WAL_BYTES: Final = 256 << 20
FULL_DAYS: Final = 30
RECENT_DAYS: Final = 7
FEW_TASKS: Final = 1000  # from fewer recent tasks no growth is foretold
TRANSACTION_SECONDS: Final = 60
SKEW_SECONDS: Final = 2.0
CONNECTIONS_SHARE: Final = 0.8
MANY_ROWS: Final = 10_000
TABLES_SHOWN: Final = 5
DAY_US: Final = 86_400_000_000
Look = Callable[["Connection"], Iterator[DoctorFinding]]

_OPEN_TRANSACTIONS: Final = (
    "SELECT pid, application_name, extract(epoch FROM clock_timestamp() - xact_start) AS seconds FROM pg_stat_activity"
    " WHERE xact_start IS NOT NULL AND datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    " ORDER BY xact_start LIMIT 1"
)
_TABLES: Final = (
    "SELECT pg_class.relname, n_live_tup, n_dead_tup, last_analyze IS NULL AND last_autoanalyze IS NULL AS is_unknown, reltuples"
    " FROM pg_stat_user_tables JOIN pg_class ON pg_class.oid = relid ORDER BY n_live_tup DESC"
)
# Autovacuum also needs the statistics of track_counts.
_AUTOVACUUM_OFF: Final = "SELECT name FROM pg_settings WHERE name IN ('autovacuum', 'track_counts') AND setting = 'off' ORDER BY name"
_CONNECTIONS: Final = "SELECT (SELECT COUNT(*) FROM pg_stat_activity) AS used, current_setting('max_connections')::int AS most"
_RECENT: Final = "SELECT COUNT(*), (SELECT COUNT(*) FROM tasks WHERE created > :since) FROM tasks"
_SKEWED: Final = "the database's clock is {seconds:+.1f} s from the one of this machine"


def check_database(settings: "Settings") -> Iterator[DoctorFinding]:
    """Yields what is wrong with an existing, reachable database. Others are findings of `interlock check`."""
    file = home.sqlite_file(settings)
    if file is not None and not file.exists():
        return
    looks: tuple[Look, ...] = (_clock, _transactions, _autovacuum, _table_statistics, _connections)
    with home.connect_to_database(settings) as connection:
        if file is not None:
            yield from _check_file(connection, file)
            return
        for look in looks:
            yield from look(connection)


def _check_file(connection: "Connection", file: Path) -> Iterator[DoctorFinding]:
    """Yields a large write-ahead log, and a disk that the file fills within FULL_DAYS."""
    wal = Path(f"{file}-wal")
    if wal.exists() and wal.stat().st_size > WAL_BYTES:
        yield DoctorFinding("database.wal-large", f"{wal} has {format_bytes(wal.stat().st_size)}")
    growth = _daily_growth(connection, file.stat().st_size)
    free = shutil.disk_usage(file.parent).free
    if growth and free / growth < FULL_DAYS:
        size = format_bytes(file.stat().st_size)
        yield DoctorFinding(
            "database.fills-disk", f"{file} has {size} and grows by {format_bytes(growth)} a day; {format_bytes(free)} are free"
        )


def _daily_growth(connection: "Connection", size: int) -> float:
    """Returns the bytes by which the tasks of the last week have made the database grow each day; 0 for few tasks."""
    from sqlalchemy import text

    since = time.time_ns() // 1000 - RECENT_DAYS * DAY_US
    total, recent = connection.execute(text(_RECENT), {"since": since}).one()
    return size * recent / total / RECENT_DAYS if recent >= FEW_TASKS else 0.0


def _query(connection: "Connection", statement: str) -> list[Any]:
    return list(connection.exec_driver_sql(statement).all())


def _clock(connection: "Connection") -> Iterator[DoctorFinding]:
    before = time.time()
    ((told,),) = _query(connection, "SELECT extract(epoch FROM clock_timestamp())::float8")
    skew = told - (before + time.time()) / 2
    if abs(skew) > SKEW_SECONDS:
        yield DoctorFinding("clock.skewed", _SKEWED.format(seconds=skew))


def _transactions(connection: "Connection") -> Iterator[DoctorFinding]:
    for row in _query(connection, _OPEN_TRANSACTIONS):
        if row.seconds > TRANSACTION_SECONDS:
            who = row.application_name or "a program without a name"
            detail = f"{who} (PID {row.pid}) has a transaction open for {row.seconds:.0f} s"
            yield DoctorFinding("database.long-transaction", detail, f"SELECT pg_terminate_backend({row.pid}), unless it is a backup")


def _autovacuum(connection: "Connection") -> Iterator[DoctorFinding]:
    for (name,) in _query(connection, _AUTOVACUUM_OFF):
        yield DoctorFinding("database.autovacuum-off", f"{name} is off", f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()")


def _table_statistics(connection: "Connection") -> Iterator[DoctorFinding]:
    yield from judge_tables(_query(connection, _TABLES))


def judge_tables(tables: Sequence[Any]) -> Iterator[DoctorFinding]:
    """Yields tables with many dead rows, and large ones that were never analyzed. `reltuples` is -1 without statistics (pg_class)."""
    bloated = [row.relname for row in tables if row.n_dead_tup > MANY_ROWS and row.n_dead_tup > row.n_live_tup / 2]
    unknown = [row.relname for row in tables if row.is_unknown and row.reltuples < 0 and row.n_live_tup > MANY_ROWS]
    for id_, names, statement in (("database.dead-rows", bloated, "VACUUM (ANALYZE)"), ("database.no-statistics", unknown, "ANALYZE")):
        if names:
            yield DoctorFinding(id_, ", ".join(names[:TABLES_SHOWN]), "; ".join(f"{statement} {name}" for name in names[:TABLES_SHOWN]))


def _connections(connection: "Connection") -> Iterator[DoctorFinding]:
    (row,) = _query(connection, _CONNECTIONS)
    if row.used > row.most * CONNECTIONS_SHARE:
        yield DoctorFinding("database.connections", f"{row.used} of {row.most} connections are in use")


CHECKS: Final = (check_database,)
