"""Locks files for this process. A lock file may be removed by its holder."""

import fcntl
import os
from pathlib import Path
from typing import IO, Final

HOLDER_MAX: Final = 1000  # characters


class FileLocked(Exception):
    """Another process holds the lock. `holder`: what the lock file says of it."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


def lock_file(path: Path) -> IO[str]:
    """Locks a file, which is created if missing, until the result is closed or the process ends. Raises FileLocked and OSError.

    The holder may remove the file. A lock of a file that was removed meanwhile excludes no other process, so the new file is locked then.
    """
    while True:
        lock = path.open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with lock:
                lock.seek(0)
                raise FileLocked(lock.read(HOLDER_MAX)) from None
        if _is_still(path, lock):
            return lock
        lock.close()


def _is_still(path: Path, lock: IO[str]) -> bool:
    """Whether the path still leads to the locked file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False
