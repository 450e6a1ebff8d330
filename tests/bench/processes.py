"""Processes of the benchmark: started with a log of their own, watched through /proc, always ended."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fakes.ports import free_port

ROOT = Path(__file__).parents[2]
_TICK = os.sysconf("SC_CLK_TCK")
_ENDED: Final = (FileNotFoundError, ProcessLookupError)  # a worker of a database lives for a moment
_CORES = sorted(os.sched_getaffinity(0))
GATEWAY_CORE, LOAD_CORE = frozenset(_CORES[:1]), frozenset(_CORES[1:2] or _CORES)
"""Where what is measured runs, and where the load client and the upstream run, so that neither takes time from the other."""


class BenchFailure(Exception):
    """The benchmark can't go on; the message says why."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server on 127.0.0.1."""

    pid: int
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ended(self) -> bool:
        """Whether the process is gone, be it that nobody asked for its exit code yet."""
        return _fields(self.pid)[0] == "Z"


def environment(**extra: str) -> dict[str, str]:
    """Ours without any setting of a gateway, so that shipped defaults are measured."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("INTERLOCK_")}
    return {**plain, "PYTHONPATH": str(ROOT), **extra}


def cpu_seconds(pid: int) -> float:
    """User and system time so far of a process, its threads and its children, but those that end meanwhile."""
    ticks = _cpu_ticks(pid)
    for child in list(_tree(pid))[1:]:
        with suppress(*_ENDED):
            ticks += _cpu_ticks(child)
    return ticks / _TICK


def resident_mb(pid: int) -> float:
    """Resident memory of a process and its children, but those that end meanwhile, in MB of 10^6 bytes."""
    found = _resident_kb(pid)
    for child in list(_tree(pid))[1:]:
        with suppress(*_ENDED):
            found += _resident_kb(child)
    return found * 1024 / 1e6


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for child in _children(pid):
        yield from _tree(child)


def _children(pid: int) -> list[int]:
    """The processes that a process has started; none of one that has ended."""
    found = list[int]()
    with suppress(*_ENDED):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(*_ENDED):
                found += map(int, (thread / "children").read_text().split())
    return found


def _cpu_ticks(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[11]) + int(fields[12])  # utime and stime, fields 14 and 15 of proc(5)


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on, the state."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _resident_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def run_process(
    command: Sequence[str], *, port: int, cwd: Path, log: Path, env: Mapping[str, str], cores: frozenset[int] = frozenset()
) -> Iterator[Running]:
    """Runs `command` until the block ends; returns from the start at once. Raises BenchFailure when it ended before the block did.

    `cores`: those that it may run on; empty: all.
    """
    with log.open("ab") as sink:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
    if cores:
        os.sched_setaffinity(process.pid, cores)
    try:
        yield Running(process.pid, port, log)
        if process.poll() is not None:
            raise BenchFailure(f"{' '.join(command)} ended by itself with {process.returncode}:\n{tail_of(log)}")
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def asgi_server(app: str, folder: Path, cores: frozenset[int] = LOAD_CORE, **env: str) -> Iterator[Running]:
    """A raw-ASGI app under uvicorn with uvloop and httptools, ready to be called. `app` = module:attribute."""
    port = free_port()
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
    command = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(port), *options]
    log = folder / f"{app.partition(':')[0]}.log"
    with run_process(command, port=port, cwd=ROOT, log=log, env=environment(**env), cores=cores) as running:
        await_port(running, seconds=60)
        yield running


def await_port(running: Running, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not is_listening(running.port):
        if running.ended or time.monotonic() > end:
            raise BenchFailure(f"nothing listens on port {running.port}:\n{tail_of(running.log)}")
        time.sleep(0.02)


def tail_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])
