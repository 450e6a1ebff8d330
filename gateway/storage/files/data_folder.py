"""The gateway's home folder: made at need, closed to others, locked where only one process may have it, and telling where we serve."""

import fcntl
import os
import stat
from pathlib import Path
from typing import IO

import msgspec

DATABASE_FILE = "interlock.db"
OTHERS_MODE = 0o077
OWN_FILES = (f"{DATABASE_FILE}*", "audit.*", "lock", "serving.json")  # beside the keys, which are read only where their mode is right


class HomeInUse(Exception):
    """Another gateway runs with this home. `todo` says how to go on."""

    todo = "stop the other one, or set INTERLOCK_HOME to another folder"


class HomeWritableByOthers(OSError):
    """Others may write where the signing keys and the audit's heads are kept, and it is not ours to change."""


def missing_files(home: Path, database_url: str) -> dict[str, Path]:
    """What a first start makes and is not there yet: where each will be. What the operator brings is made by nobody."""
    places = {"signing keys": home / "keys", "vault keys": home / "keys" / "vault", "audit heads": home / "audit.heads"}
    missing = {what: path.absolute() for what, path in places.items() if not path.exists()}
    file = database_url.removeprefix("sqlite:///")
    return missing | ({"database": Path(file)} if file != database_url and not Path(file).exists() else {})


def prepare_home(home: Path, public_url: str, exclusive: bool) -> IO[str] | None:
    """The folder, which says where we serve; with `alone` locked for this process. Raises HomeInUse and HomeOpen."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    _restrict_mode(home)
    lock = lock_home(home) if exclusive else None
    (home / "serving.json").write_text(msgspec.json.encode({"url": public_url}).decode())
    for path in (found for pattern in OWN_FILES for found in home.glob(pattern)):
        if path.stat().st_mode & OTHERS_MODE and path.stat().st_uid == os.geteuid():
            path.chmod(0o600)
    return lock


def _restrict_mode(home: Path) -> None:
    """Takes away what others may do in a folder of ours. One that everybody shares, or that is another's and open to all, is refused."""
    found = home.stat()
    if not found.st_mode & OTHERS_MODE:
        return
    if found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX:
        home.chmod(0o700)
    elif found.st_mode & stat.S_IWOTH:
        raise HomeWritableByOthers(f"{home}: everybody may write there; give the gateway a folder of its own, of mode 0700")


def lock_home(home: Path) -> IO[str]:
    """For this process alone, until it is closed. Raises HomeInUse."""
    lock = (home / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HomeInUse(f"another gateway runs on {home}") from None
    return lock
