"""The gateway's home folder: created if missing, closed to other users, locked for one process, and recording the public URL."""

import os
import stat
from pathlib import Path
from typing import IO

import msgspec

from gateway.storage.files.file_locks import FileLocked, lock_file

DATABASE_FILE = "interlock.db"
OTHERS_MODE = 0o077
HOME_LOCK = "lock"
OWN_FILES = (f"{DATABASE_FILE}*", "audit.*", "lock", "serving.json")  # keys are checked where they are read


class HomeInUse(Exception):
    """Another gateway runs with this home. `todo` says what to do."""

    todo = "stop the other one, or set INTERLOCK_HOME to another folder"


class HomeWritableByOthers(OSError):
    """Other users can write to the folder of the signing keys and audit heads, and the gateway cannot change that."""


def missing_files(home: Path, database_url: str) -> dict[str, Path]:
    """Returns the files that a first start creates and that are missing, by name. Files that the operator supplies are not included."""
    places = {"signing keys": home / "keys", "vault keys": home / "keys" / "vault", "audit heads": home / "audit.heads"}
    missing = {purpose: path.absolute() for purpose, path in places.items() if not path.exists()}
    file = database_url.removeprefix("sqlite:///")
    return missing | ({"database": Path(file)} if file != database_url and not Path(file).exists() else {})


def prepare_home(home: Path, public_url: str, exclusive: bool) -> IO[str] | None:
    """Creates the home with `serving.json` and, with `exclusive`, returns its lock. Raises HomeInUse and HomeWritableByOthers."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _restrict_mode(home)
    lock = lock_home(home) if exclusive else None
    (home / "serving.json").write_text(msgspec.json.encode({"url": public_url}).decode())
    for path in (found for pattern in OWN_FILES for found in home.glob(pattern)):
        if path.stat().st_mode & OTHERS_MODE and path.stat().st_uid == os.geteuid():
            path.chmod(0o600)
    return lock


def _restrict_mode(home: Path) -> None:
    """Removes the access of other users from the gateway's own folder.

    Raises HomeWritableByOthers for a shared folder (sticky), or another user's, that all users can write to.
    """
    found = home.stat()
    if not found.st_mode & OTHERS_MODE:
        return
    if found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
        home.chmod(0o700)
    elif found.st_mode & stat.S_IWOTH:
        raise HomeWritableByOthers(f"{home}: every user may write there; give the gateway a folder of its own, of mode 0700")


def lock_home(home: Path) -> IO[str]:
    """Locks the home for this process until the result is closed. Raises HomeInUse."""
    try:
        lock = lock_file(home / HOME_LOCK)
    except FileLocked:
        raise HomeInUse(f"another gateway runs on {home}") from None
    return lock
