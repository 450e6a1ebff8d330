"""The one database writer: whoever waits at the same moment shares one durable commit."""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import structlog
from sqlalchemy import Connection, Engine, Table
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")
Work = Callable[["Batch"], T]
BATCH_MAX = 512
DEFERRED_SECONDS = 0.05
DEFERRED_MAX = 10_000

log = structlog.get_logger()


class NotKept(Exception):
    """The database did not take the write; nothing of it was kept."""


class Participant(Protocol):
    """Keeps state in step with the commits, such as the head of a hash chain. Called on the writer's thread."""

    def committed(self) -> None: ...

    def rolled_back(self) -> None: ...


class Batch:
    """One transaction under way. Rows that are only inserted go through `add`, which needs no statement of its own."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._mark = "?" if connection.dialect.name == "sqlite" else "%s"
        self._errors: type[Exception] = connection.dialect.loaded_dbapi.Error
        self._rows: dict[Table, list[tuple[Any, ...]]] = {}

    @property
    def connection(self) -> Connection:
        """For statements other than plain inserts; sees every row added before."""
        self.flush()
        return self._connection

    def add(self, table: Table, row: dict[str, Any]) -> None:
        self._rows.setdefault(table, []).append(tuple(row.get(name) for name in table.columns.keys()))  # noqa: SIM118 (a ColumnCollection iterates over columns)

    def run(self, statement: str, values: tuple[Any, ...]) -> int:
        """Runs one statement at once, with `?` marks, and returns the number of rows it changed. Does not see rows just added."""
        cursor = self._connection.connection.cursor()
        try:
            cursor.execute(statement if self._mark == "?" else statement.replace("?", "%s"), values)
            return int(cursor.rowcount)
        except self._errors as error:
            raise DBAPIError.instance(statement, None, error, self._errors) from error
        finally:
            cursor.close()

    def flush(self) -> None:
        if not self._rows:
            return
        cursor = self._connection.connection.cursor()
        rows, self._rows = self._rows, {}
        for table, values in rows.items():
            names = table.columns.keys()
            marks = ",".join([self._mark] * len(names))
            statement = f"INSERT INTO {table.name} ({','.join(names)}) VALUES ({marks})"  # noqa: S608 (names of our own tables)
            try:
                cursor.executemany(statement, values)
            except self._errors as error:
                raise DBAPIError.instance(statement, None, error, self._errors) from error
        cursor.close()


class _Job:
    __slots__ = ("future", "work")

    def __init__(self, work: Work[Any], future: "asyncio.Future[Any] | None") -> None:
        self.work = work
        self.future = future


class Writer:
    """A thread that takes all jobs that wait, runs them in one transaction and wakes their callers after the commit.

    When one job of a transaction fails, all of it is rolled back and each is tried alone, so only the culprit fails.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._deferred: deque[_Job] = deque()
        self._participants: list[Participant] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="interlock-writer", daemon=True)

    def enlist(self, participant: Participant) -> None:
        self._participants.append(participant)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread.start()

    async def write(self, work: Work[T]) -> T:
        """Runs `work` in the next commit and returns its result once that is durable. Raises what `work` raised, or NotKept."""
        if self._loop is None or not self._thread.is_alive():
            raise NotKept("the database writer does not run")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(work, future))
        return await future

    def post(self, work: Work[Any]) -> None:
        """Runs `work` with the next commit, or within 50 ms, and tells nobody. For what comes after an effect, never before it."""
        if len(self._deferred) < DEFERRED_MAX:
            self._deferred.append(_Job(work, None))

    def close(self) -> None:
        """Keeps all that was handed in, then ends."""
        if self._thread.is_alive():
            self._jobs.put(None)
            self._thread.join(timeout=10)

    def _run(self) -> None:
        connection: Connection | None = None
        while True:
            jobs, last = self._take()
            if jobs:
                try:
                    connection = connection or self._engine.connect()
                    outcomes = self._commit(connection, jobs)
                except Exception as error:  # the thread's root: a database that went away must not end it
                    log.exception("database_unavailable")
                    self._drop(connection)
                    connection = None
                    outcomes = [(job.future, None, NotKept(str(type(error).__name__))) for job in jobs]
                self._deliver(outcomes)
            if last:
                if connection is not None:
                    connection.close()
                return

    def _take(self) -> tuple[list[_Job], bool]:
        """All jobs that wait, at most BATCH_MAX, and whether they are the last."""
        jobs: list[_Job] = []
        last = False
        try:
            first = self._jobs.get(timeout=DEFERRED_SECONDS)
            while first is not None:
                jobs.append(first)
                if len(jobs) >= BATCH_MAX:
                    break
                first = self._jobs.get_nowait()
            last = first is None
        except queue.Empty:
            pass
        while self._deferred and len(jobs) < 2 * BATCH_MAX:
            jobs.append(self._deferred.popleft())
        return jobs, last

    def _commit(self, connection: Connection, jobs: list[_Job]) -> list[tuple[Any, Any, BaseException | None]]:
        try:
            return self._transact(connection, jobs)
        except Exception as error:  # noqa: BLE001 (one of these jobs is the culprit: each is tried alone and told)
            log.debug("batch_rolled_back", jobs=len(jobs), error=type(error).__name__)
            self._undo(connection)
            if len(jobs) > 1:
                return [outcome for job in jobs for outcome in self._alone(connection, job)]
            return self._alone(connection, jobs[0])

    def _alone(self, connection: Connection, job: _Job) -> list[tuple[Any, Any, BaseException | None]]:
        try:
            return self._transact(connection, [job])
        except Exception as error:  # belongs to this job's caller
            self._undo(connection)
            if job.future is None:
                log.exception("posted_write_lost")
            return [(job.future, None, error)]

    def _transact(self, connection: Connection, jobs: list[_Job]) -> list[tuple[Any, Any, BaseException | None]]:
        connection.begin()
        batch = Batch(connection)
        outcomes: list[tuple[Any, Any, BaseException | None]] = [(job.future, job.work(batch), None) for job in jobs]
        batch.flush()
        connection.commit()
        for participant in self._participants:
            participant.committed()
        return outcomes

    def _undo(self, connection: Connection) -> None:
        for participant in self._participants:
            participant.rolled_back()
        connection.rollback()

    def _drop(self, connection: Connection | None) -> None:
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _deliver(self, outcomes: list[tuple[Any, Any, BaseException | None]]) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, outcomes)


def _resolve(outcomes: list[tuple[Any, Any, BaseException | None]]) -> None:
    for future, result, error in outcomes:
        if future is None or future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
