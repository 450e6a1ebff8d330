"""What is measured of one gateway: capacity, the cost of a refusal, four times its load, and how soon it is normal again."""

import os
import secrets
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.bench.interlock import PATHS, Home
from tests.bench.load import Job, Sample
from tests.bench.processes import ROOT, BenchFailure, Running, cpu_seconds, resident_mb
from tests.bench.rounds import LoadClient, Target
from tests.bench.workload import WORKLOADS, Script
from tests.overload.open_loop import GRACE, Answers, OpenJob
from tests.overload.probing import Normal, Probes, call_once

HELD_SECONDS = 2.0  # until a gateway whose database is locked starts nothing more, at most
LOCKED_SECONDS = 4.0  # the gateway gives a write up after 5
BLOCKED_MAX = 15  # calls that block, one each 0.2 seconds, before the gateway refuses one


@dataclass(frozen=True, slots=True)
class Storm:
    """What came of the load beyond capacity. `cpu_s` is the gateway's, from the first request to the last reply."""

    answers: Answers
    seconds: float
    cpu_s: float
    wall_s: float
    probes: Probes
    recovered_s: float
    mb_before: float
    mb_most: float
    mb_after: float


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """What this process starts inside runs on one core; itself it does so only meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def capacity(client: LoadClient, workload: str, target: Target, seconds: float) -> Sample:
    """As many calls as 64 connections get served one after the other. Raises BenchFailure for a wrong reply other than a refusal."""
    sample = client.run(_job(workload, target.running, target.paths[workload], target.tokens, connections=64, seconds=seconds))
    if sample.errors and not sample.fault.startswith("HTTP 503"):
        raise BenchFailure(f"wrong replies: {sample.fault}")
    return msgspec.structs.replace(sample, calls=max(1, sample.calls - sample.errors))


def raw_refusals(client: LoadClient, running: Running, tokens: list[str], seconds: float) -> Sample:
    """Refusals of raw ASGI, which read no token."""
    return client.run(_job("mcp_refused", running, PATHS["mcp"], tokens, connections=16, seconds=seconds))


def own_refusals(client: LoadClient, home: Home, target: Target, seconds: float) -> Sample:
    """Refusals of a gateway that lets no request wait, while its database is locked."""
    with lock(home, target):
        seconds = min(seconds, LOCKED_SECONDS - HELD_SECONDS)
        return client.run(_job("mcp_refused", target.running, PATHS["mcp"], target.tokens, connections=16, seconds=seconds))


@contextmanager
def lock(home: Home, target: Target) -> Iterator[None]:
    """Locks the database, and goes on when the gateway refuses calls. Raises BenchFailure if it never does."""
    with _locked(home.folder / "data" / "interlock.db"):
        blocked: list[threading.Thread] = []
        while not blocked or blocked[-1].is_alive():  # the gateway looks at its writer when a request comes
            if len(blocked) > BLOCKED_MAX:
                raise BenchFailure("the gateway starts calls although its writer waits")
            blocked.append(threading.Thread(target=call_once, args=(target.running, target.tokens[0]), daemon=True))
            blocked[-1].start()
            blocked[-1].join(0.2)
        yield
    for call in blocked:
        call.join()


def await_served(target: Target) -> None:
    """Until a call is served. Raises BenchFailure."""
    end = time.monotonic() + 30
    while call_once(target.running, target.tokens[0]) != 200:
        if time.monotonic() > end:
            raise BenchFailure("no call is served")
        time.sleep(0.1)


@contextmanager
def _locked(database: Path) -> Iterator[None]:
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA busy_timeout=5000")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def storm(folder: Path, workload: str, target: Target, admin: str, *, rate: float, seconds: float, settle: float = 0.0) -> Storm:
    """`rate` requests a second for `seconds`, with probes and administration meanwhile, and the memory `settle` seconds later."""
    running, script = target.running, _script(workload, target)
    normal = Normal.measured(running, script)
    before = resident_mb(running.pid)
    job = OpenJob(workload, running.port, target.paths[workload], target.tokens, secrets.token_hex(4), rate, seconds)
    (folder / "open-job.json").write_bytes(msgspec.json.encode(job))
    probes = Probes(running, admin, end=time.monotonic() + seconds)
    cpu, began = cpu_seconds(running.pid), time.perf_counter()
    command = [sys.executable, "-m", "tests.overload.open_loop", str(folder / "open-job.json")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        probes.run()
        recovered = normal.await_again(script)
        out, _ = process.communicate(timeout=GRACE + 30)
    used, wall = cpu_seconds(running.pid) - cpu, time.perf_counter() - began
    if process.returncode:
        raise BenchFailure(f"the load client ended with {process.returncode}")
    answers = msgspec.json.decode(out, type=Answers)
    time.sleep(settle)
    return Storm(answers, seconds, used, wall, probes, recovered, before, probes.mb_most, resident_mb(running.pid))


def _script(workload: str, target: Target) -> Script:
    """Requests of one person."""
    address = ("127.0.0.1", target.running.port, target.paths[workload])
    return Script(WORKLOADS[workload], address, target.tokens[:1], secrets.token_hex(4))


def _job(workload: str, running: Running, path: str, tokens: list[str], *, connections: int, seconds: float) -> Job:
    nonce = secrets.token_hex(4)
    return Job(workload, running.port, path, tokens, connections, nonce, seconds=seconds, warmup=min(0.5, seconds / 4), pid=running.pid)
