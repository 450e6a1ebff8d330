"""The order of measuring: which target is called when, so that a slow minute of the machine hits all of them."""

import json
import os
import secrets
import select
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from tests.bench.figures import Run, summarize
from tests.bench.load import GRACE, Job, Sample
from tests.bench.processes import LOAD_CORE, ROOT, BenchFailure, Running
from tests.bench.workload import EVERY_WORKLOAD

CONNECTIONS = (1, 16, 64)
_SLACK = 20.0  # seconds that opening connections and adding up may take


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. `seconds` and `warmup` are of one cell, one of (workload, connections, target, round)."""

    workloads: tuple[str, ...] = ("mcp", "a2a")
    targets: tuple[str, ...] = ("direct", "floor", "interlock")
    rounds: int = 3
    seconds: float = 3.0
    warmup: float = 0.5
    users: int = 50
    fresh_users: int = 500
    cold_starts: int = 3
    profile: bool = False  # no figures, but where the time goes
    beside: bool = True  # what of A2A is measured beside `workloads`: streams, tasks asked for, translation, idle subscribers
    subscribers: int = 2000
    sessions: int = 1000  # of the legacy era
    workflows: bool = True  # steps of workflows, on both databases
    waiting_runs: int = 10_000  # that wait for people
    events: bool = True  # events and memory, on both databases
    event_seconds: float = 20.0  # in which events start runs
    facts: int = 100_000  # that a search in memory is over
    shared_state: bool = True  # effects, claims and the board, on both databases
    claimants: int = 16  # of one claim
    console: bool = True  # pages of the console with a full database, on both databases
    tasks: int = 200_000  # in that database
    processes: bool = True  # one and two on PostgreSQL


@dataclass(frozen=True, slots=True)
class Target:
    """`paths` and `tokens` by workload: where it is called and in whose names."""

    name: str
    running: Running
    paths: dict[str, str]
    tokens: list[str]
    subjects: dict[str, list[str]] = field(default_factory=dict)  # by workload: see Script
    sessions: list[str] = field(default_factory=list)  # of the initialize era, as many as tokens; empty: none


class LoadClient:
    """The load client's process. Jobs travel as files, samples as short lines."""

    def __init__(self, process: "subprocess.Popen[bytes]", folder: Path) -> None:
        self._process = process
        self._job_file = folder / "job.json"
        self.faults: list[str] = []  # one per job with wrong replies

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator["LoadClient"]:
        command = [sys.executable, "-m", "tests.bench.load"]
        with (folder / "load.log").open("wb") as sink:
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink)
        os.sched_setaffinity(process.pid, LOAD_CORE)
        try:
            yield cls(process, folder)
        finally:
            process.kill()
            process.communicate()

    def run(self, job: Job) -> Sample:
        """Waits for the end of a job. Raises BenchFailure when the client died of it, or does not come to an end."""
        assert self._process.stdin is not None
        self._job_file.write_bytes(msgspec.json.encode(job))
        self._process.stdin.write(f"{self._job_file}\n".encode())
        self._process.stdin.flush()
        sample = msgspec.json.decode(self._line(job), type=Sample)
        if sample.errors:
            self.faults.append(f"{job.workload} {job.path} x{job.connections}: {sample.errors} wrong, first: {sample.fault}")
        return sample

    def _line(self, job: Job) -> bytes:
        assert self._process.stdout is not None
        limit = job.warmup + job.seconds + 2 * GRACE + _SLACK
        ready, _, _ = select.select([self._process.stdout], [], [], limit)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            outcome = f"ended with {self._process.wait()}" if ready else f"said nothing for {limit:.0f} s"
            raise BenchFailure(f"the load client {outcome}: {job.workload} x{job.connections} at port {job.port}")
        return line


def run_interleaved(
    client: LoadClient, plan: Plan, targets: list[Target], connections: tuple[int, ...] = CONNECTIONS
) -> Iterator[tuple[str, int, str, Sample]]:
    """Every cell of every round as (workload, connections, target, sample); each round begins with another target."""
    for turn in range(plan.rounds):
        shift = turn % len(targets)
        for workload in plan.workloads:
            for count in connections:
                for target in targets[shift:] + targets[:shift]:
                    yield workload, count, target.name, client.run(job(plan, workload, count, target))


def job(plan: Plan, workload: str, connections: int, target: Target) -> Job:
    return Job(
        workload=workload,
        port=target.running.port,
        path=target.paths[workload],
        tokens=target.tokens,
        connections=connections,
        nonce=secrets.token_hex(4),
        seconds=plan.seconds,
        warmup=plan.warmup,
        pid=target.running.pid,
        subjects=target.subjects.get(workload, []),
        sessions=target.sessions,
    )


def measure_rows(
    client: LoadClient, plan: Plan, targets: list[Target], kind: str = "", connections: tuple[int, ...] = CONNECTIONS
) -> list[Run]:
    """The rows of all cells; `kind` is added to the workload's name."""
    cells: dict[tuple[str, int, str], list[Sample]] = defaultdict(list)
    total = plan.rounds * len(plan.workloads) * len(connections) * len(targets)
    began = time.monotonic()
    for number, (workload, count, target, sample) in enumerate(run_interleaved(client, plan, targets, connections), 1):
        cells[workload, count, target].append(sample)
        rate, name = sample.calls / sample.wall_s, EVERY_WORKLOAD[workload].name
        print_progress(f"  [{number}/{total}, {time.monotonic() - began:.0f} s] {name}{kind} x{count} {target}: {rate:,.0f} req/s")
    return [
        summarize(target.name, EVERY_WORKLOAD[workload].name + kind, count, cells[workload, count, target.name])
        for workload in plan.workloads
        for count in connections
        for target in targets
    ]


def print_progress(text: str) -> None:
    """Progress, for people."""
    print(text, file=sys.stderr, flush=True)


def write_json(document: dict[str, object], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
