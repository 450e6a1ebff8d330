"""What backup and restore share: progress, the passphrase of the keys, and errors as commands print them."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.cli import output as screen
from gateway.cli.exit_codes import CommandFailed, WrongUsage

if TYPE_CHECKING:
    from gateway.storage.files.backups.archive import Report
    from gateway.storage.files.backups.creation import Step

NOTE_SECONDS = 10.0  # between two lines of progress where stderr is no terminal


@contextmanager
def show_steps() -> Iterator["Step"]:
    """Yields a function that announces a step. A terminal shows the step with its progress; elsewhere a line follows every 10 seconds."""
    if not sys.stderr.isatty():
        yield _print_steps
        return
    with screen.console(stderr=True).status("…") as status:

        def begin(what: str) -> "Report":
            status.update(f"{what}…")
            return lambda done, total: status.update(f"{what}… {_format_progress(done, total)}")

        yield begin


def _print_steps(what: str) -> "Report":
    printed = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal printed
        if time.monotonic() - printed >= NOTE_SECONDS:
            printed = time.monotonic()
            screen.print_note(f"{what}: {_format_progress(done, total)}")

    return report


def _format_progress(done: int, total: int) -> str:
    return f"{100 * done // max(total, 1)} %"


def read_passphrase(file: Path | None) -> str:
    """Returns the passphrase in the first line of a file; empty without one. Raises WrongUsage."""
    if file is None:
        return ""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"{file} can't be read as a passphrase", "openssl rand -base64 24 > FILE makes one") from error
    if not lines or not lines[0]:
        raise WrongUsage(f"{file} has no passphrase in its first line", "openssl rand -base64 24 > FILE makes one")
    return lines[0]


@contextmanager
def explained_errors(act: str) -> Iterator[None]:
    """Turns what a backup or a restoration raises into CommandFailed. `act`: what was not done."""
    from sqlalchemy.exc import SQLAlchemyError

    from gateway.storage.database_start import problem_of
    from gateway.storage.files.backups.archive import BackupUnusable
    from gateway.storage.files.data_folder import HomeInUse

    try:
        yield
    except (BackupUnusable, HomeInUse) as error:
        raise CommandFailed(f"{act}: {error}", error.todo) from error
    except FileNotFoundError as error:
        raise CommandFailed(f"{act}: {error.filename or ''} does not exist", "name a file that exists, in a folder that exists") from error
    except FileExistsError as error:
        raise CommandFailed(f"{act}: {error}", "name a new file") from error
    except SQLAlchemyError as error:
        raise CommandFailed(f"{act}: {problem_of(error)}", "is the database running, and is database.url right? interlock check") from error
    except OSError as error:
        raise CommandFailed(
            f"{act}: {error.filename or ''} {error.strerror or error}", "is there room, and may this user write there?"
        ) from error


def format_size(size: int) -> str:
    """Returns a number of bytes for people."""
    for unit, bytes_of_one in (("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_of_one:
            return f"{size / bytes_of_one:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"
