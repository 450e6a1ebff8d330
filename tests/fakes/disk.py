"""What a test may know of files: what was synced when, which are still open, and who holds a lock."""

import fcntl
import os
import stat
from contextlib import suppress
from pathlib import Path

OPEN = Path("/proc/self/fd")


class Synced:
    """Stands for os.fsync: it notes what would be durable, a file's bytes or the names in a folder."""

    def __init__(self) -> None:
        self.seen: list[bytes | set[str]] = []

    def __call__(self, descriptor: int) -> None:
        path = (OPEN / str(descriptor)).readlink()
        self.seen.append({each.name for each in path.iterdir()} if stat.S_ISDIR(os.fstat(descriptor).st_mode) else path.read_bytes())


def left_open(folder: Path) -> list[str]:
    """The folder and its files, as far as this process has them open."""
    found = []
    for each in list(OPEN.iterdir()):
        with suppress(OSError):  # somebody closed it meanwhile
            path = each.readlink()
            found += [path.name] if path.is_relative_to(folder) else []
    return found


def is_held(lock: Path) -> bool:
    """Whether somebody who opened the file holds its lock now."""
    with lock.open("rb") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
