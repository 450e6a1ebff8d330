"""The load client: raw sockets, HTTP/1.1 keep-alive, one process of its own; files with jobs in, one line for each sample out."""

import asyncio
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import cast

import msgspec
import uvloop

from tests.bench.processes import cpu_seconds
from tests.bench.workload import EVERY_WORKLOAD, FIRST_ID, Script, Workload

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
GRACE = 15.0  # seconds after the end in which outstanding replies may still arrive


class Job(msgspec.Struct, frozen=True):
    """Calls on `connections` until `seconds` are over or `calls` were made (0: no bound), after a warm-up of `warmup` seconds."""

    workload: str  # a key of EVERY_WORKLOAD
    port: int
    path: str
    tokens: list[str]
    connections: int
    nonce: str
    seconds: float = 3.0
    warmup: float = 0.5
    calls: int = 0
    pid: int = 0  # whose CPU is counted; 0: nobody's
    host: str = "127.0.0.1"
    subjects: list[str] = []  # see Script
    sessions: list[str] = []  # see Script


class Sample(msgspec.Struct, frozen=True):
    """What a job saw between warm-up and end. `errors` and `fault` (the first one) are of the warm-up too."""

    calls: int
    wall_s: float
    cpu_s: float
    p50_s: float
    p99_s: float
    errors: int
    fault: str


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest value that `share` of all values do not exceed; 0 where there is none."""
    if not ordered:
        return 0.0
    rank = -(-len(ordered) * share // 1)
    return ordered[max(0, min(len(ordered), int(rank)) - 1)]


def whole_reply(data: bytes) -> tuple[int, bytes] | None:
    """Status and body of an HTTP/1.1 reply, None while it is incomplete. Raises ValueError when it is none."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    if not data.startswith(b"HTTP/1.1 "):
        raise ValueError("not an HTTP/1.1 reply")
    head, body, status = data[: end + 2], data[end + 4 :], int(data[9:12])
    if length := _LENGTH.search(head):
        if len(body) > int(length[1]):
            raise ValueError("a reply longer than it says")
        return (status, body) if len(body) == int(length[1]) else None
    if _CHUNKED.search(head):
        return (status, _joined(body)) if body.endswith(b"\r\n0\r\n\r\n") else None
    raise ValueError("a reply without a length")


def _joined(chunks: bytes) -> bytes:
    body = b""
    while chunks:
        size, _, rest = chunks.partition(b"\r\n")
        body, chunks = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


class Connection(asyncio.Protocol):
    """One call after the other over one socket."""

    def __init__(self, drive: "Drive") -> None:
        self._drive = drive
        self._buffer = b""
        self._number = 0
        self._since = 0.0
        self._transport: asyncio.WriteTransport | None = None
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is no subclass of asyncio's

    def call(self) -> None:
        """Sends the next request, if there is to be one. A lost connection is not opened again: its loss was counted."""
        number = self._drive.next_number()
        self.busy = bool(number) and self._transport is not None
        if not self.busy or self._transport is None:
            self._drive.rest()
            return
        self._number = number
        self._since = perf_counter()
        self._transport.write(self._drive.script.request(number))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            reply = whole_reply(self._buffer)
        except ValueError as error:
            self._drive.fail(f"{error}: {self._buffer[:300]!r}")
            self.close()
            return
        if reply is not None:
            self._buffer = b""
            self._drive.heard(self._number, perf_counter() - self._since, *reply)
            self.call()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self.busy:
            self.busy = False
            self._drive.fail(f"the connection was lost ({exc or 'closed'})")
            self._drive.rest()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Drive:
    """The calls of one job and what came of them."""

    def __init__(self, script: Script, workload: Workload) -> None:
        self.script = script
        self.errors = 0
        self.fault = ""
        self.latencies: list[float] = []
        self._judge: Callable[[bytes, int, str], str] = workload.fault
        self._status = workload.status
        self._number = FIRST_ID
        self._last = 0
        self._end = 0.0
        self._busy = 0
        self._rested = asyncio.Event()

    async def phase(self, connections: list[Connection], seconds: float, calls: int) -> None:
        """Keeps all connections calling until time or `calls` (0: no bound) are used up and every reply is in."""
        self.latencies = []
        self._end = perf_counter() + seconds
        self._last = self._number + calls if calls else sys.maxsize
        self._busy = len(connections)
        self._rested.clear()
        for connection in connections:
            connection.call()
        try:
            await asyncio.wait_for(self._rested.wait(), seconds + GRACE)
        except TimeoutError:
            self.fail("no reply in time", times=sum(connection.busy for connection in connections))

    def next_number(self) -> int:
        """The id of the next call; 0 when the phase is over."""
        if self._number >= self._last or perf_counter() >= self._end:
            return 0
        self._number += 1
        return self._number

    def heard(self, number: int, seconds: float, status: int, body: bytes) -> None:
        self.latencies.append(seconds)
        fault = f"HTTP {status}: {body[:300]!r}" if status != self._status else self._judge(body, number, self.script.text(number))
        if fault:
            self.fail(fault)

    def fail(self, fault: str, times: int = 1) -> None:
        self.errors += times
        self.fault = self.fault or fault

    def rest(self) -> None:
        self._busy -= 1
        if self._busy == 0:
            self._rested.set()


async def run(job: Job) -> Sample:
    """All calls of a job. A connection that can't be opened raises OSError."""
    workload = EVERY_WORKLOAD[job.workload]
    address = (job.host, job.port, job.path)
    drive = Drive(Script(workload, address, job.tokens, job.nonce, job.subjects, sessions=job.sessions), workload)
    loop = asyncio.get_running_loop()
    opened = [await loop.create_connection(lambda: Connection(drive), job.host, job.port) for _ in range(job.connections)]
    connections = [protocol for _, protocol in opened]
    if job.warmup:
        await drive.phase(connections, job.warmup, 0)
    cpu, since = cpu_seconds(job.pid) if job.pid else 0.0, perf_counter()
    await drive.phase(connections, job.seconds, job.calls)
    wall, used = perf_counter() - since, (cpu_seconds(job.pid) if job.pid else 0.0) - cpu
    for connection in connections:
        connection.close()
    if not drive.latencies:
        drive.fail("not one reply")
    times = sorted(drive.latencies)
    return Sample(len(times), wall, used, percentile(times, 0.5), percentile(times, 0.99), drive.errors, drive.fault)


def main() -> None:
    for line in sys.stdin:
        job = msgspec.json.decode(Path(line.rstrip("\n")).read_bytes(), type=Job)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            sample = runner.run(run(job))
        sys.stdout.buffer.write(msgspec.json.encode(sample) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
