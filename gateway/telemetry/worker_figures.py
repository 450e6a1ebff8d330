"""The folder in which the workers of one gateway share their figures: one set of files per worker, kept by prometheus_client."""

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
FOLDER, PREFIX = "metrics", "gateway-"  # in the home: one folder for each gateway that runs there
OWNER = "owner.lock"


class FiguresFolder:
    """The folder of one gateway, locked by the process that starts its workers. Folders of gateways that have ended are removed."""

    def __init__(self, home: Path) -> None:
        parent = home / FOLDER
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _exclusive(parent):  # else another gateway that starts now removes the new folder before it is locked
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
    """One worker's place in the folder. A worker that replaces a dead one takes its place and goes on with its counters.

    So there are never more files than workers, and no sum falls when a worker is replaced.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number, self._lock = _first_free(folder)

    def use(self) -> None:
        """Makes prometheus_client keep the figures of this process here. They must not have been made yet."""
        number = self.number
        values.ValueClass = values.MultiProcessValue(process_identifier=lambda: number)  # type: ignore[no-untyped-call]  # prometheus_client has no types for it

    def forget_dead(self) -> None:
        """Removes the gauges of workers that have ended and were not replaced; what they counted stays."""
        for path in self.folder.glob("worker-*.lock"):
            number = int(path.stem.removeprefix("worker-"))
            if number != self.number and (lock := _open_locked(path)) is not None:
                with lock:
                    mark_process_dead(number, str(self.folder))  # type: ignore[no-untyped-call]  # prometheus_client has no types for it

    def close(self) -> None:
        """Leaves the place to another worker."""
        self._lock.close()


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Waits until no other process is inside for this folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _remove_ended(folder: Path) -> None:
    """Removes a gateway's folder unless the gateway still runs."""
    with suppress(FileNotFoundError):  # its gateway removed it meanwhile
        if (lock := _open_locked(folder / OWNER)) is not None:
            with lock:
                shutil.rmtree(folder)


def _first_free(folder: Path) -> tuple[int, IO[bytes]]:
    """The lowest number that no worker holds, and its lock. Raises FileNotFoundError if the folder is gone."""
    number = 0
    while (lock := _open_locked(folder / f"worker-{number}.lock")) is None:
        number += 1
    return number, lock


def _open_locked(path: Path) -> IO[bytes] | None:
    """The file, locked until it is closed or this process ends; None while another process holds it.

    Raises FileNotFoundError if its folder is gone.
    """
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
