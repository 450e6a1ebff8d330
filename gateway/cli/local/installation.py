"""Settings, database and keys of the gateway on this machine, for commands that run without the gateway."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.exit_codes import BadConfiguration, CommandFailed

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from gateway.server.settings import Settings
    from policies.keys.signing import SigningKeys
    from policies.vault.wrapping_keys import VaultKeys

Config = Annotated[Path | None, typer.Option("--config", help="The configuration file (default: interlock.yaml, where it exists).")]


def load_settings(config: Path | None, **flags: str | int | None) -> "Settings":
    from gateway.server.settings import BadSettings
    from gateway.server.settings_sources import load_settings

    try:
        return load_settings(config, **flags)
    except BadSettings as error:
        raise BadConfiguration(str(error), "correct the setting; interlock check verifies all of them") from error


def describe_failure(error: Exception, settings: "Settings") -> CommandFailed:
    """Returns the error that ends a command after one of START_ERRORS: BadConfiguration where trying again does not help."""
    from gateway.storage.files.start_failures import describe_start_failure

    found = describe_start_failure(error, settings.home, settings.policies)
    return (CommandFailed if found.may_pass else BadConfiguration)(found.problem, found.todo)


def open_signing_keys(settings: "Settings", create: bool = False) -> "SigningKeys":
    """Returns the signing keys. `create` lets commands that may run before the gateway's first start create them.

    Raises CommandFailed, and its BadConfiguration for keys that can't be used.
    """
    from policies.keys.key_folder import KeysUnusable
    from policies.keys.signing import SigningKeys

    folder = settings.home / "keys"
    if not create and not folder.is_dir():
        raise CommandFailed(f"there are no keys in {folder}", "is INTERLOCK_HOME right? the first interlock serve creates the keys")
    try:
        return SigningKeys.open(settings.home)
    except (KeysUnusable, OSError) as error:
        raise describe_failure(error, settings) from error


def open_vault_keys(settings: "Settings") -> "VaultKeys":
    """Returns the keys that encrypt credentials. The first start creates them with the signing keys. Raises CommandFailed."""
    from gateway.server.settings import environment_value
    from policies.keys.key_folder import KeysUnusable
    from policies.vault.wrapping_keys import VaultKeys, read_configured_keys

    try:
        return VaultKeys.open(settings.home, read_configured_keys(settings.vault.keys, environment_value))
    except KeysUnusable as error:
        raise BadConfiguration(str(error), "check vault.keys, or the owner and modes of keys/vault") from error
    except OSError as error:
        raise describe_failure(error, settings) from error


@contextmanager
def open_engine(settings: "Settings") -> Iterator["Engine"]:
    """Yields an engine of an existing database at the newest schema. Raises CommandFailed."""
    from sqlalchemy.exc import SQLAlchemyError

    from gateway.storage.database import engine_for

    made = engine_for(settings.database_url)
    try:
        yield made
    except SQLAlchemyError as error:
        raise CommandFailed(
            f"the database refused the change: {type(error).__name__}", "interlock check; then interlock migrate"
        ) from error
    finally:
        made.dispose()


def sqlite_file(settings: "Settings") -> Path | None:
    """Returns the database's file, or None on PostgreSQL."""
    from sqlalchemy.engine import make_url

    url = make_url(settings.database_url)
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


@contextmanager
def connect_to_database(settings: "Settings", read_only: bool = True) -> Iterator["Connection"]:
    """Yields a connection, read-only unless `read_only` is false. The database is neither created nor migrated.

    Raises CommandFailed.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from gateway.storage.database import engine_for
    from gateway.storage.database_start import describe_unusable, problem_of

    url = settings.database_url
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        raise CommandFailed(
            f"there is no database {url.removeprefix('sqlite:///')}", "is INTERLOCK_HOME right? the first interlock serve creates it"
        )
    engine = engine_for(settings.database_url)
    try:
        connection = engine.connect()
    except SQLAlchemyError as error:
        raise describe_failure(describe_unusable(engine, error), settings) from error
    try:
        with connection:
            yield connection.execution_options(interlock_read=True) if read_only else connection
    except SQLAlchemyError as error:
        raise CommandFailed(f"the database can't be read: {problem_of(error)}", "interlock check; then interlock migrate") from error
    finally:
        engine.dispose()
