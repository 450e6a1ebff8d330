"""Opens the home folder, the signing keys and the database of one process."""

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import IO

import structlog
from sqlalchemy.exc import SQLAlchemyError

from gateway.server.settings import Settings
from gateway.storage.database import Database, engine_for
from gateway.storage.database_start import DatabaseUnusable, DatabaseWait, describe_location, describe_unusable, wait_for_database
from gateway.storage.files.data_folder import prepare_home
from gateway.storage.files.database_file import lock_database_file, sqlite_path
from gateway.storage.files.lost_records import refuse_lost_records
from gateway.storage.migrations import HEAD
from policies.keys.signing import SigningKeys

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Storage:
    """The open storage of one process. Closing `locks` lets another process open the same home and the same SQLite file."""

    keys: SigningKeys
    database: Database
    locks: ExitStack


def open_storage(settings: Settings, process: str, *, stale_seconds: float, observe_commit: Callable[[float], object]) -> Storage:
    """Opens the home and its database, and migrates the database to the schema of this version. Waits for an unreachable server.

    `observe_commit` gets how long the oldest write of each commit took.

    Raises HomeInUse, HomeWritableByOthers, KeysUnusable, DatabaseInUse, DatabaseUnusable and OSError.
    """
    is_sqlite = sqlite_path(settings.database_url) is not None
    with ExitStack() as locks:
        locks.enter_context(prepare_home(settings.home, settings.public_url, is_sqlite) or ExitStack())
        keys = SigningKeys.open(settings.home)
        database = Database(engine_for(settings.database_url, process), stale_seconds=stale_seconds, observe_commit=observe_commit)
        try:
            refuse_wrong_database(database, settings, keys)
            locks.enter_context(_lock_file(settings) or ExitStack())
            _migrate(database)
        except SQLAlchemyError as error:
            raise describe_unusable(database.engine, error) from error
        return Storage(keys, database, locks.pop_all())


def migrate_ahead(settings: Settings) -> None:
    """Migrates the database in a child process, whose memory ends with it: Alembic takes 10 MB.

    Called before any thread runs. Does nothing where no migration is due. If the child fails, it says nothing: `open_storage` tries again
    in this process, and raises what is wrong.
    """
    if threading.active_count() > 1 or not hasattr(os, "fork") or not _is_migration_due(settings):
        return
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    try:
        storage = open_storage(settings, "interlock migrating", stale_seconds=0.0, observe_commit=lambda seconds: None)
        storage.database.close()
        storage.locks.close()
    finally:
        sys.stderr.flush()
        os._exit(0)  # the handlers of the parent's end are not the child's, and an error is the parent's to meet


def _is_migration_due(settings: Settings) -> bool:
    """Returns whether the schema is older than this version's, as far as can be told at once."""
    file = sqlite_path(settings.database_url)
    if file is not None and not file.exists():
        return True
    engine = engine_for(settings.database_url)
    try:
        return Database(engine).revision() < HEAD
    except SQLAlchemyError:
        return False
    finally:
        engine.dispose()


def refuse_wrong_database(database: Database, settings: Settings, keys: SigningKeys) -> None:
    """Raises DatabaseUnusable for a database that is unreachable, lost its audit records or is newer than this version. Writes nothing."""
    file = sqlite_path(settings.database_url)
    if file is None:
        wait_for_database(
            database.engine, DatabaseWait(settings.database.wait, lambda problem: log.warning("database_awaited", problem=problem))
        )
    if missing := refuse_lost_records(database.engine, settings.home / "audit.heads", keys):
        log.warning("audit_records_missing", chains=missing, todo="interlock audit verify")
    if (file is None or file.exists()) and (revision := check_revision(database)) > HEAD:
        log.warning("database_newer", revision=revision, known=HEAD)  # while processes of two versions work on it


def check_revision(database: Database) -> str:
    """Returns the schema revision of the database.

    Raises DatabaseUnusable for a newer schema, unless it only adds to the one that this version knows.
    """
    try:
        revision = database.revision()
        usable_from = database.usable_from() if revision > HEAD else HEAD
    except SQLAlchemyError as error:
        raise describe_unusable(database.engine, error) from error
    if not usable_from or usable_from > HEAD:
        raise DatabaseUnusable(
            f"{describe_location(database.engine)} is at revision {revision}, "
            f"but this version of the gateway knows only revisions up to {HEAD}",
            "start the version of the gateway that migrated it, or restore a backup from before that migration",
        )
    return revision


def _lock_file(settings: Settings) -> IO[str] | None:
    lock = lock_database_file(settings.database_url, settings.home)
    file = sqlite_path(settings.database_url)
    if file is not None:
        file.touch(mode=0o600)  # SQLite gives its write-ahead log the mode of this file
    return lock


def _migrate(database: Database) -> None:
    """Migrates the database to HEAD, and logs it unless the database is new. Raises DatabaseUnusable where its rows can't be migrated."""
    if (revision := database.revision()) < HEAD:
        from gateway.storage.migrations.run import BrokenReferences, upgrade  # Alembic is loaded only when there is something to migrate

        begun = time.monotonic()
        if revision:
            log.info("migration_begun", before=revision, after=HEAD)
        try:
            upgrade(database.engine)
        except BrokenReferences as error:
            raise DatabaseUnusable(
                f"{describe_location(database.engine)}: {error}", "restore a backup from before it was changed"
            ) from error
        if revision:
            log.info("migration_ended", before=revision, after=HEAD, seconds=round(time.monotonic() - begun, 3))
