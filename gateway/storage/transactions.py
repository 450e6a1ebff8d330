"""Runs the jobs of the writer: all in one transaction, one by one if that fails, and finds the outcome of an uncertain commit."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog
from msgspec import Struct
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from gateway.storage.batch import (
    UNSTORABLE_ERRORS,
    Batch,
    BulkInsert,
    CommitUncertain,
    ReferenceMissing,
    UnstorableValue,
    WriteFailed,
)
from gateway.storage.database_start import cause_of
from gateway.storage.sqlite_insert import bulk_insert_for

DUPLICATE_ERRORS = {"SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE", "23505"}
REFERENCE_ERRORS = {"SQLITE_CONSTRAINT_FOREIGNKEY", "23503"}
log = structlog.get_logger()


class Participant(Protocol):
    """State that follows the commits, such as the head of a hash chain. Called on the writer's thread."""

    def on_commit(self) -> None: ...

    def on_rollback(self) -> None: ...

    def resolve_uncertain_commit(self, connection: Connection) -> bool:
        """Reads the state from the database after an uncertain commit. Returns whether that commit is there."""
        ...


class JobOutcome(Struct, frozen=True):
    """The result of a job, or the error for which nothing of it was written."""

    result: Any
    error: Exception | None = None


Job = Callable[[Batch], Any]


class TransactionRunner:
    """Runs jobs on one long-lived connection. Used by one thread only."""

    def __init__(self, engine: Engine, create_bulk_insert: Callable[[Connection], BulkInsert | None] = bulk_insert_for) -> None:
        self._engine = engine
        self._create_bulk_insert = create_bulk_insert
        self._connection: Connection | None = None
        self._bulk_insert: BulkInsert | None = None  # of `_connection`
        self._has_uncertain_commit = False  # a commit broke and none has succeeded since: it may still become visible
        self._must_resolve = False  # the participants must read the database before the next write
        self.participants: list[Participant] = []

    def run_jobs(self, jobs: Sequence[Job]) -> list[JobOutcome]:
        """Runs jobs and returns the outcome of each. A failing job does not affect the others.

        A job may run again after a rollback.
        """
        try:
            return self._run_together(jobs)
        except WriteFailed as error:
            return [JobOutcome(None, error)] * len(jobs)
        except Exception as error:  # noqa: BLE001 (the error of one of these jobs, which its caller gets)
            log.debug("batch_rolled_back", jobs=len(jobs), error=type(error).__name__)
            if len(jobs) == 1:
                return [JobOutcome(None, _error_for_caller(error))]
        return self._run_one_by_one(jobs)

    def _run_one_by_one(self, jobs: Sequence[Job]) -> list[JobOutcome]:
        """Runs each job in its own transaction.

        After two failures of the database in a row, the remaining jobs fail without an attempt.
        """
        outcomes: list[JobOutcome] = []
        for job in jobs:
            away = [outcome.error for outcome in outcomes[-2:] if is_database_away(outcome.error)]
            outcomes += [JobOutcome(None, away[0])] if len(away) == 2 else self.run_jobs([job])
        return outcomes

    def _run_together(self, jobs: Sequence[Job]) -> list[JobOutcome]:
        """Runs all jobs in one transaction.

        Repeats it once if the connection was lost before the commit, or if an uncertain commit became visible late.
        """
        try:
            return self._transact(jobs)
        except SQLAlchemyError as error:
            if self._connection is not None and not self._must_resolve:
                raise
            log.info("transaction_repeated", error=type(error).__name__)
        return self._transact(jobs)

    def _transact(self, jobs: Sequence[Job]) -> list[JobOutcome]:
        connection = self._usable_connection()
        batch = Batch(connection, self._bulk_insert)
        try:
            outcomes = [JobOutcome(job(batch)) for job in jobs]
            batch.commit()
        except CommitUncertain as error:
            log.warning("commit_broke", error=type(error.__cause__).__name__, reason=cause_of(error))
            if not self._was_committed():
                raise WriteFailed("the commit broke") from error
            return outcomes
        except Exception as error:
            self._must_resolve = self._has_uncertain_commit and isinstance(error, IntegrityError)
            self._roll_back(connection)
            if isinstance(error, WriteFailed):
                self.drop_connection()
            raise
        self._has_uncertain_commit = False
        for participant in self.participants:
            participant.on_commit()
        return outcomes

    def _usable_connection(self) -> Connection:
        """Returns a connection without an unresolved commit. Raises WriteFailed."""
        try:
            connection = self._connection or self._connect()
            if self._must_resolve:
                self._resolve_uncertain_commit(connection)
        except (SQLAlchemyError, OSError) as error:
            log.debug("no_transaction", error=type(error).__name__)
            self.drop_connection()
            raise WriteFailed("the database can't be reached") from error
        return connection

    def _connect(self) -> Connection:
        self._connection = connection = self._engine.connect()
        self._bulk_insert = self._create_bulk_insert(connection)
        return connection

    def _was_committed(self) -> bool:
        """Returns whether a broken commit succeeded, as far as a new connection can tell."""
        self.drop_connection()
        self._has_uncertain_commit = self._must_resolve = True
        try:
            return self._resolve_uncertain_commit(self._connect())
        except (SQLAlchemyError, OSError) as error:  # the next connection resolves it first
            log.warning("commit_in_doubt", error=type(error).__name__)
            self.drop_connection()
            return False

    def _resolve_uncertain_commit(self, connection: Connection) -> bool:
        committed = [participant.resolve_uncertain_commit(connection) for participant in self.participants]
        connection.rollback()
        self._must_resolve = False
        return any(committed)

    def _roll_back(self, connection: Connection) -> None:
        for participant in self.participants:
            participant.on_rollback()
        try:
            lost = connection.invalidated
            connection.rollback()
        except (SQLAlchemyError, OSError) as error:  # a connection that cannot roll back is lost
            log.debug("rollback_broke", error=type(error).__name__)
            lost = True
        if lost:
            self.drop_connection()

    def drop_connection(self) -> None:
        """Closes the connection, in any state."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            connection.invalidate()
            connection.close()
        except SQLAlchemyError as error:
            log.debug("connection_dropped", error=type(error).__name__)


def is_database_away(error: Exception | None) -> bool:
    """Whether the database did not take a write for a reason of its own."""
    return isinstance(error, WriteFailed) and not isinstance(error, ReferenceMissing)


def _error_for_caller(error: Exception) -> Exception:
    """Returns the error that the job's caller gets."""
    if isinstance(error, IntegrityError):
        known = getattr(error.orig, "sqlite_errorname", "") or getattr(error.orig, "sqlstate", "")
        if known in DUPLICATE_ERRORS:
            return error
        if known in REFERENCE_ERRORS:
            missing = ReferenceMissing("a row refers to one that is not there")
            missing.__cause__ = error
            return missing
    elif isinstance(error, UNSTORABLE_ERRORS):
        log.warning("value_not_stored", error=type(error).__name__)
        return UnstorableValue()
    elif not isinstance(error, SQLAlchemyError):
        return error
    refused = WriteFailed("the database did not take the write")
    refused.__cause__ = error
    return refused
