"""What prevents a start: the problem, what to do, and whether a later start can succeed without a change."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.storage.database_start import DatabaseUnusable
from gateway.storage.files.data_folder import HomeInUse, HomeWritableByOthers
from policies.cedar.engine import BadPolicy
from policies.keys.key_folder import KeysUnusable

START_ERRORS: Final = (BadPolicy, KeysUnusable, DatabaseUnusable, HomeInUse, OSError)
UNWRITABLE: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_WRONG_KINDS: Final = (FileExistsError, NotADirectoryError, IsADirectoryError)  # a folder that is only missing may be mounted later
WRITE_TODO: Final = "run this as the user of the gateway, and mount the file system for writing"


@dataclass(frozen=True, slots=True)
class StartFailure:
    """Why the gateway did not start. `may_pass`: a later start can succeed although no person changes anything."""

    problem: str
    todo: str
    may_pass: bool


def describe_start_failure(error: Exception, home: Path, policies: str = "") -> StartFailure:
    """Returns what to say of one of START_ERRORS. `policies` is the operator's folder of policies."""
    match error:
        case BadPolicy():
            return StartFailure(error.describe_in(policies), "correct the file; interlock policy check", may_pass=False)
        case KeysUnusable():
            return StartFailure(str(error), "correct the file, or restore the keys from a backup", may_pass=False)
        case DatabaseUnusable():
            return StartFailure(str(error), error.todo, error.may_pass)
        case HomeInUse():
            return StartFailure(str(error), error.todo, may_pass=True)
        case HomeWritableByOthers():
            return StartFailure(str(error), f"chmod 700 {home}, or set INTERLOCK_HOME to a folder of the gateway's own", may_pass=False)
        case OSError(filename=str() | bytes()):
            return _describe_unusable_path(error, home)
    return StartFailure(str(error), "interlock check verifies all that the gateway needs", may_pass=True)


def _describe_unusable_path(error: OSError, home: Path) -> StartFailure:
    """Describes a file or folder that can't be used: one within the home, which exists, by its own name."""
    path = Path(os.fsdecode(error.filename))
    if error.errno in UNWRITABLE:
        return StartFailure(f"{path.absolute()} can't be used: {error.strerror}", WRITE_TODO, may_pass=False)
    may_pass = not isinstance(error, _WRONG_KINDS)
    if home.is_dir() and path != home:
        return StartFailure(f"{path} can't be used: {error.strerror}", "check what is there, and the disk", may_pass)
    return StartFailure(f"INTERLOCK_HOME is {home}, where no folder can be: {error.strerror}", "set it to a folder of yours", may_pass)
