"""The folder in which the workers of one gateway share their metrics: one set of prometheus_client files per worker."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from prometheus_client import values
from prometheus_client.multiprocess import mark_process_dead

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client writes, in each worker
FOLDER, PREFIX = "metrics", "gateway-"  # in the home: one folder for each running gateway
OWNER = "owner.lock"


class FiguresFolder:
    """The folder of one gateway, locked by the process that starts its workers. Removes folders of gateways that have ended."""

    def __init__(self, home: Path) -> None:
        parent = home / FOLDER
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _exclusive(parent):  # otherwise a gateway that starts now could remove the new folder before it is locked
            for left in parent.glob(f"{PREFIX}*"):
                _remove_ended(left)
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).absolute()
            self._lock = _open_locked(self.path / OWNER)

    def remove(self) -> None:
        """Removes the folder when the gateway ends."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()


class WorkerFigures:
    """One worker's number in the folder.

    A worker that replaces a dead one takes over its number and its counters. So there are never more files than workers, and no sum
    falls when a worker is replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number, self._lock = _first_free(folder)

    def use(self) -> None:
        """Makes prometheus_client store this process's metrics here. Must run before any metric is created."""
        number = self.number
        values.ValueClass = values.MultiProcessValue(process_identifier=lambda: number)  # type: ignore[no-untyped-call]  # prometheus_client has no types for it

    def forget_dead(self) -> None:
        """Removes the gauges of workers that have ended without a replacement; their counters stay."""
        for path in self.folder.glob("worker-*.lock"):
            number = int(path.stem.removeprefix("worker-"))
            if number != self.number and (lock := _open_locked(path)) is not None:
                with lock:
                    mark_process_dead(number, str(self.folder))  # type: ignore[no-untyped-call]  # prometheus_client has no types for it

    def close(self) -> None:
        """Frees the number for another worker."""
        self._lock.close()


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Holds an exclusive lock on the folder, waiting for other processes."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_ended(folder: Path) -> None:
    """Removes a gateway's folder unless the gateway still runs."""
    with suppress(FileNotFoundError):  # its gateway has removed it
        if (lock := _open_locked(folder / OWNER)) is not None:
            with lock:
                shutil.rmtree(folder)


def _first_free(folder: Path) -> tuple[int, IO[bytes]]:
    """Returns the lowest number that no worker holds, and its lock. Raises FileNotFoundError if the folder is gone."""
    number = 0
    while (lock := _open_locked(folder / f"worker-{number}.lock")) is None:
        number += 1
    return number, lock


def _open_locked(path: Path) -> IO[bytes] | None:
    """Returns the file, locked until it is closed or this process ends, or None if another process holds the lock.

    Raises FileNotFoundError if its folder is gone.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
