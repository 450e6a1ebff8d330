"""Transactions of the writer: all jobs together, each alone when one of them fails, and the truth after a commit that broke."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from gateway.storage.batch import Batch, CommitBroke, Intake, NotKept
from gateway.storage.sqlite_insert import intake_for

DUPLICATES = {"SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE", "23505"}
log = structlog.get_logger()


class Participant(Protocol):
    """Keeps state in step with the commits, such as the head of a hash chain. Called on the writer's thread."""

    def committed(self) -> None: ...

    def rolled_back(self) -> None: ...

    def settle(self, connection: Connection) -> bool:
        """After a commit whose outcome is not known: takes the state from the database. True when that commit is there."""
        ...


class Outcome(NamedTuple):
    """What a job returned, or why nothing of it was kept."""

    result: Any
    error: Exception | None = None


Job = Callable[[Batch], Any]


class Transactions:
    """Runs jobs on one long-lived connection. Used by one thread only."""

    def __init__(self, engine: Engine, intakes: Callable[[Connection], Intake | None] = intake_for) -> None:
        self._engine = engine
        self._intakes = intakes
        self._connection: Connection | None = None
        self._intake: Intake | None = None  # of that connection
        self._broken = False  # a commit broke, and none was kept since: it may yet turn out to be kept
        self._in_doubt = False  # the participants must look at the database before anything is appended
        self.participants: list[Participant] = []

    def outcomes(self, jobs: Sequence[Job]) -> list[Outcome]:
        """One for each job. What one job does wrong is its own affair; a job may be run again after a rollback."""
        try:
            return self._kept(jobs)
        except NotKept as error:
            return [Outcome(None, error)] * len(jobs)
        except Exception as error:  # noqa: BLE001 (it belongs to one of these jobs, whose caller is told)
            log.debug("batch_rolled_back", jobs=len(jobs), error=type(error).__name__)
            if len(jobs) == 1:
                return [Outcome(None, _told(error))]
        return self._one_by_one(jobs)

    def _one_by_one(self, jobs: Sequence[Job]) -> list[Outcome]:
        """When the database takes neither of two jobs in a row, it is the database: the others need not wait for its answers."""
        outcomes: list[Outcome] = []
        for job in jobs:
            away = [outcome.error for outcome in outcomes[-2:] if isinstance(outcome.error, NotKept)]
            outcomes += [Outcome(None, away[0])] if len(away) == 2 else self.outcomes([job])
        return outcomes

    def _kept(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Runs all jobs in one transaction; once more when the connection was lost before the commit, or a broken commit came late."""
        try:
            return self._transact(jobs)
        except NotKept:
            raise
        except Exception as error:
            if self._connection is not None and not self._in_doubt:
                raise
            log.info("transaction_repeated", error=type(error).__name__)
        return self._transact(jobs)

    def _transact(self, jobs: Sequence[Job]) -> list[Outcome]:
        connection = self._ready()
        batch = Batch(connection, self._intake)
        try:
            outcomes = [Outcome(job(batch)) for job in jobs]
            batch.keep()
        except CommitBroke as error:
            log.warning("commit_broke", error=type(error.__cause__).__name__)
            if not self._found_kept():
                raise NotKept("the commit broke") from error
            return outcomes
        except Exception as error:
            self._in_doubt = self._broken and isinstance(error, IntegrityError)
            self._undo(connection)
            if isinstance(error, NotKept):
                self.drop()
            raise
        self._broken = False
        for participant in self.participants:
            participant.committed()
        return outcomes

    def _ready(self) -> Connection:
        """The connection, with nothing in doubt. Raises NotKept."""
        try:
            connection = self._connection or self._connect()
            if self._in_doubt:
                self._settle(connection)
        except Exception as error:
            log.debug("no_transaction", error=type(error).__name__)
            self.drop()
            raise NotKept("the database can't be reached") from error
        return connection

    def _connect(self) -> Connection:
        self._connection = connection = self._engine.connect()
        self._intake = self._intakes(connection)
        return connection

    def _found_kept(self) -> bool:
        """Whether a commit that broke was kept after all, as far as a new connection can tell."""
        self.drop()
        self._broken = self._in_doubt = True
        try:
            return self._settle(self._connect())
        except Exception as error:  # noqa: BLE001 (the question stays open, and comes first on the next connection)
            log.warning("commit_in_doubt", error=type(error).__name__)
            self.drop()
            return False

    def _settle(self, connection: Connection) -> bool:
        kept = [participant.settle(connection) for participant in self.participants]
        connection.rollback()
        self._in_doubt = False
        return any(kept)

    def _undo(self, connection: Connection) -> None:
        for participant in self.participants:
            participant.rolled_back()
        try:
            lost = connection.invalidated
            connection.rollback()
        except Exception as error:  # noqa: BLE001 (a connection that can't even roll back is none)
            log.debug("rollback_broke", error=type(error).__name__)
            lost = True
        if lost:
            self.drop()

    def drop(self) -> None:
        """Lets go of the connection, in whatever state it is."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.invalidate()
            connection.close()
        except SQLAlchemyError as error:
            log.debug("connection_dropped", error=type(error).__name__)


def _told(error: Exception) -> Exception:
    """The error as the job's caller sees it."""
    if isinstance(error, IntegrityError):
        known = getattr(error.orig, "sqlite_errorname", "") or getattr(error.orig, "sqlstate", "")
        if known in DUPLICATES:
            return error
    elif isinstance(error, DataError) or not isinstance(error, SQLAlchemyError):
        return error
    refused = NotKept("the database did not take the write")
    refused.__cause__ = error
    return refused
