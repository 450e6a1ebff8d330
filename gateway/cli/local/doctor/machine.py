"""The machine and the home folder: disk, open files, keys."""

import os
import resource
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Final

from gateway.cli.local import installation as home
from gateway.cli.local.doctor.kinds import DoctorFinding

if TYPE_CHECKING:
    from gateway.server.settings import Settings

FULL_BYTES: Final = 256 << 20
LOW_BYTES: Final = 2 << 30
LOW_SHARE: Final = 0.05
SYNCS: Final = 15  # writes of which the median counts
SLOW_SYNC_SECONDS: Final = 0.02
FEW_CONNECTIONS: Final = 4096  # the gateway closes idle ones first, so that fewer than the settings allow are no fault
KEY_DAYS: Final = 365
DAY: Final = 86_400


def check_disk(settings: "Settings") -> Iterator[DoctorFinding]:
    """Yields a disk without space. Space below 5 % counts as little only up to 20 GB."""
    folder = _nearest_folder(settings.home)
    usage = shutil.disk_usage(folder)
    detail = f"{format_bytes(usage.free)} of {format_bytes(usage.total)} are free at {folder}"
    if usage.free < FULL_BYTES:
        yield DoctorFinding("disk.full", detail)
    elif usage.free < max(LOW_BYTES, min(usage.total * LOW_SHARE, 10 * LOW_BYTES)):
        yield DoctorFinding("disk.low", detail)


def check_sync_time(settings: "Settings") -> Iterator[DoctorFinding]:
    """Yields a disk that takes long to make a small write durable, as each commit does. Writes an unnamed file in the home folder."""
    if not settings.home.is_dir():
        return
    seconds = median_sync_seconds(settings.home)
    if seconds > SLOW_SYNC_SECONDS:
        yield DoctorFinding("disk.slow", f"a write of 4 KiB takes {seconds * 1000:.0f} ms to be durable in {settings.home}")


def median_sync_seconds(folder: Path) -> float:
    """Returns the median time of writing 4 KiB durably in a folder, in seconds. Raises OSError."""
    taken = []
    with TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.write(b"\0" * 4096)
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return sorted(taken)[len(taken) // 2]


def check_open_files(settings: "Settings") -> Iterator[DoctorFinding]:
    """Yields a limit of open files below what the settings want. The gateway itself raises its soft limit to the hard one."""
    from gateway.calls.limits.open_files import WANTED_LIMIT, OpenFileBudget

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = WANTED_LIMIT if hard == resource.RLIM_INFINITY else min(hard, WANTED_LIMIT)
    budget = OpenFileBudget(limit)
    if budget.calls_max < settings.limits.calls or budget.connections < min(settings.server.max_connections, FEW_CONNECTIONS):
        detail = f"{limit} open files allow {budget.calls_max} calls and {budget.connections} connections"
        yield DoctorFinding("files.few", f"{detail}; the settings want {settings.limits.calls} and {settings.server.max_connections}")


def check_keys(settings: "Settings") -> Iterator[DoctorFinding]:
    """Yields key files that other users can read, and a signing key of more than a year."""
    folder = settings.home / "keys"
    if not folder.is_dir():
        return
    for path in (folder, *sorted(folder.rglob("*"))):
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            yield DoctorFinding(
                "keys.readable", f"{path} is accessible to other users", f"chmod -R go= {folder}; then interlock keys rotate"
            )
            return
    days = (time.time() - home.open_signing_keys(settings).active_since_us / 1e6) / DAY
    if days > KEY_DAYS:
        yield DoctorFinding("keys.old", f"the signing key is {days:.0f} days old")


def _nearest_folder(path: Path) -> Path:
    """Returns the path, or the nearest folder above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def format_bytes(count: float) -> str:
    """Returns a size for people, such as `1.5 GB`."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} bytes"


CHECKS: Final = (check_disk, check_sync_time, check_open_files, check_keys)
