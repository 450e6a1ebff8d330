"""The database: its engine, the group-commit writer, readers, and the epochs that announce changes to every process."""

import asyncio
import hashlib
import math
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar

import structlog
from sqlalchemy import Connection, Engine, create_engine, event, inspect, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from gateway.storage.batch import UNSTORABLE_ERRORS, Batch, GuardedUpdate, UnstorableValue, WriteFailed
from gateway.storage.database_start import problem_of
from gateway.storage.outage_log import Outage
from gateway.storage.paging import DRIVER
from gateway.storage.readers import READER_THREADS, ReaderThreads, Rows
from gateway.storage.sqlite_insert import PREPARED_MAX
from gateway.storage.tables import schema_bounds
from gateway.storage.transactions import Participant
from gateway.storage.writer import Writer
from gateway.timeouts import DEFAULT_TIMEOUTS
from policies.tables import epochs

T = TypeVar("T")
EPOCHS = ("grants", "kills", "registry", "policies", "keys", "sessions")
WAL_PAGES_MAX = 16_384  # 64 MB: a commit checkpoints only if `checkpoint` does not keep up
BUSY_MS = 5000  # how long one transaction waits for a lock of another
POSTGRES_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

__all__ = ["Batch", "Database", "GuardedUpdate", "ReadFailed", "UnstorableValue", "WriteFailed", "engine_for", "raise_epoch"]
log = structlog.get_logger()


class _Refusal(NamedTuple):
    """What a write was refused for, as the result of its work."""

    error: Exception


class ReadFailed(Exception):
    """The database did not answer a query."""


def engine_for(url: str, process: str = "interlock") -> Engine:
    """Returns an engine for SQLite in WAL mode with synced commits, or for PostgreSQL through psycopg.

    The sessions at PostgreSQL have the name `process`.
    """
    if url.startswith("sqlite"):
        hinted = url.replace("sqlite:", f"{DRIVER}:", 1)
        options = {"check_same_thread": False, "timeout": BUSY_MS / 1000, "cached_statements": PREPARED_MAX}
        engine = create_engine(hinted, connect_args=options, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = create_engine(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        connect_args={**POSTGRES_OPTIONS, "application_name": process},
        pool_size=READER_THREADS + 2,
        pool_pre_ping=True,
        hide_parameters=True,
    )
    event.listen(engine, "connect", _prepare_postgres)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # `_begin_sqlite` begins transactions, not the driver
    durability_pragmas = ("journal_mode=WAL", "synchronous=FULL", f"wal_autocheckpoint={WAL_PAGES_MAX}")
    for pragma in (*durability_pragmas, f"busy_timeout={BUSY_MS}", "foreign_keys=ON", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def _prepare_postgres(connection: Any, _record: Any) -> None:
    """Bounds the wait for locks, and how long an abandoned transaction of this process can block others.

    Queries are short, so that starting workers for a part of one takes longer than the whole.
    """
    connection.execute(f"SET lock_timeout = {BUSY_MS}")
    connection.execute("SET max_parallel_workers_per_gather = 0")
    connection.execute(f"SET idle_in_transaction_session_timeout = {2 * BUSY_MS}")
    connection.commit()


def _begin_sqlite(connection: Connection) -> None:
    readonly = connection.get_execution_options().get("interlock_read")
    connection.exec_driver_sql("BEGIN" if readonly else "BEGIN IMMEDIATE")


def raise_epoch(batch: Batch, name: str) -> None:
    """Announces to every process, with this commit, that the data of epoch `name` has changed."""
    batch.connection.execute(update(epochs).where(epochs.c.name == name).values(value=epochs.c.value + 1))


class Database:
    """Reads in threads and writes through one writer. gateway/server/composition/storage.py opens one per process."""

    def __init__(
        self,
        engine: Engine,
        *,
        stale_seconds: float = DEFAULT_TIMEOUTS.stale_epochs,
        observe_commit: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        """`stale_seconds`: how long the epochs count as fresh after they were read. `observe_commit`: see Writer."""
        self.engine = engine
        self._stale_seconds = stale_seconds
        self._writer = Writer(engine, observe_commit)
        self._readers = ReaderThreads(engine)
        self._epochs = dict.fromkeys(EPOCHS, 0)
        self._epochs_read_at = -math.inf
        self._outage = Outage()
        self._watchers: list[tuple[str, Callable[[], Any]]] = []

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    def start(self) -> None:
        """Starts the writer for the running event loop."""
        self._writer.start(asyncio.get_running_loop())

    def enlist(self, participant: Participant) -> None:
        self._writer.enlist(participant)

    def write(self, work: Callable[[Batch], T], on_abandoned: Callable[[T], object] | None = None) -> Coroutine[Any, Any, T]:
        """Runs `work` in the next commit; see Writer.write."""
        return self._writer.write(work, on_abandoned)

    async def write_or_refuse(self, work: Callable[[Batch], T], *refusals: type[Exception]) -> T:
        """Runs `work` as `write` does, and raises its refusals to its caller alone.

        Any other exception rolls back what all callers of the commit have written, and their work runs again, one by one. `work` raises a
        refusal before it changes anything, since nothing is rolled back then.
        """

        def work_or_refusal(batch: Batch) -> T | _Refusal:
            try:
                return work(batch)
            except refusals as refusal:
                return _Refusal(refusal)

        result = await self.write(work_or_refusal)
        if isinstance(result, _Refusal):
            raise result.error
        return result

    async def write_alone(self, name: str, work: Callable[[Batch], T]) -> T | None:
        """Runs the periodic work `name`, which changes many rows; returns None at once while another process does the same work.

        Two processes that change the same rows in different orders wait for each other, until PostgreSQL ends one of the transactions.
        """
        key = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), signed=True)
        return await self.write(lambda batch: work(batch) if batch.try_lock(key) else None)

    @property
    def is_writable(self) -> bool:
        """Returns whether the database accepted the last write, apart from errors of the write itself."""
        return self._writer.is_healthy

    @property
    def write_wait_seconds(self) -> float:
        """For how long the oldest write that is not committed has waited; 0 while the database is away."""
        return self._writer.wait_seconds

    def call_after_commit(self, callback: Callable[[], object]) -> bool:
        """Calls `callback` after the commit under way, or returns False; see Writer.call_after_commit."""
        return self._writer.call_after_commit(callback)

    def post(self, work: Callable[[Batch], Any]) -> None:
        """Runs `work` later without a result; see Writer.post."""
        self._writer.post(work)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` in a reader's thread, within one transaction. Raises ReadFailed and UnstorableValue."""
        return await self._readers.run(lambda: self._watch_outage(lambda: self._readers.transact(work)))

    async def query(self, statement: str, values: tuple[Any, ...], convert: Callable[[Rows], T]) -> T:
        """Runs one query with `?` marks, and `convert` on its rows, in a reader's thread. Raises ReadFailed and UnstorableValue.

        A query needs no transaction, which would cost two messages more to PostgreSQL.
        """
        return await self._readers.run(lambda: convert(self._watch_outage(lambda: self._readers.query(statement, values))))

    def _watch_outage(self, read: Callable[[], T]) -> T:
        """Returns what a read finds. Logs when reads begin to fail, and when they succeed again. Raises ReadFailed and UnstorableValue."""
        try:
            found = read()
        except UNSTORABLE_ERRORS as error:
            log.warning("value_not_looked_up", error=type(error).__name__)
            raise UnstorableValue from error
        except SQLAlchemyError as error:
            if (left_out := self._outage.record_failure()) is not None:
                log.warning("database_not_read", problem=problem_of(error), left_out=left_out)
            raise ReadFailed from error
        if (seconds := self._outage.record_success()) is not None:
            log.info("database_read_again", after_seconds=round(seconds, 1))
        return found

    def is_fresh(self) -> bool:
        """Returns whether the epochs were read recently; otherwise, cached data must not be used."""
        return time.monotonic() - self._epochs_read_at < self._stale_seconds

    def watch(self, name: str, on_change: Callable[[], Any]) -> None:
        """Calls (and awaits) `on_change` after each change of `name`, by any process."""
        self._watchers.append((name, on_change))

    async def refresh_epochs(self) -> None:
        """Reads the epochs and calls the watchers of those that changed.

        An epoch counts as seen only after all of its watchers have finished.
        """
        began = time.monotonic()
        rows = await self.read(lambda connection: connection.execute(select(epochs)).all())
        current = {row.name: row.value for row in rows}
        moved = {name for name in current if current[name] != self._epochs.get(name)}
        for name, changed in self._watchers:
            if name in moved:
                outcome = changed()
                if asyncio.iscoroutine(outcome):
                    await outcome
        self._epochs.update(current)
        self._epochs_read_at = max(began, self._epochs_read_at)

    async def checkpoint(self) -> None:
        """Checkpoints the WAL of SQLite in a reader's thread, so that no commit has to wait for it."""
        if self.is_sqlite:
            await self._readers.run(self._checkpoint)

    def _checkpoint(self) -> None:
        with self.engine.connect() as connection:
            connection.connection.cursor().execute("PRAGMA wal_checkpoint(PASSIVE)")

    def revision(self) -> str:
        """Returns the migration of this database; empty for a new one."""
        with self.engine.connect() as connection:
            reader = connection.execution_options(interlock_read=True)
            if not inspect(reader).has_table("alembic_version"):
                return ""
            return str(reader.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")

    def usable_from(self) -> str:
        """Returns HEAD of the oldest code that works on this schema; empty where the database does not say."""
        with self.engine.connect() as connection:
            reader = connection.execution_options(interlock_read=True)
            if not inspect(reader).has_table(schema_bounds.name):
                return ""
            return str(reader.execute(select(schema_bounds.c.usable_from)).scalar() or "")

    def close(self) -> None:
        """Writes what was submitted, then closes every connection."""
        self._writer.close()
        self._readers.close()
        self.engine.dispose()
