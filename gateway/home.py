"""The gateway's home folder: made at need, locked where only one process may have it, and telling others where we serve."""

import fcntl
from pathlib import Path
from typing import IO

import msgspec

DATABASE = "interlock.db"


class HomeInUse(Exception):
    """Another gateway runs on this SQLite file."""


def prepared(home: Path, public_url: str, alone: bool) -> IO[str] | None:
    """The folder, which says where we serve; with `alone` locked for this process. Raises HomeInUse."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = _locked(home) if alone else None
    if alone:
        (home / DATABASE).touch(mode=0o600)  # SQLite gives its log the mode of its file
        (home / DATABASE).chmod(0o600)
    (home / "serving.json").write_text(msgspec.json.encode({"url": public_url}).decode())
    return lock


def _locked(home: Path) -> IO[str]:
    lock = (home / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HomeInUse(f"another gateway runs on {home}; stop it, or use another INTERLOCK_HOME") from None
    return lock
