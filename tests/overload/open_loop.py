"""The open-loop load client: requests leave at their moments, whether or not earlier ones were answered. One process, one job, one line."""

import asyncio
import sys
from collections import deque
from pathlib import Path
from time import perf_counter, process_time
from typing import cast

import msgspec
import uvloop

from tests.bench.load import percentile, whole_reply
from tests.bench.workload import FIRST_ID, WORKLOADS, Script

TICK = 0.002  # seconds between two looks at the clock
CONNECTIONS_MAX = 4000  # a request that finds none free is not sent, and counts as an error
GRACE = 20.0  # seconds after the end in which outstanding replies may still arrive
CONNECTED = 256  # connections that are open before the first request
LATE_MAX = 0.02  # seconds; what was due longer ago is skipped, since a burst after a pause of the client is not the load that was asked for
REFUSALS_MAX = 16  # different bytes of a refusal that are recognized without parsing


class OpenJob(msgspec.Struct, frozen=True):
    """`rate` requests a second for `seconds`, each by the next of `tokens`."""

    workload: str
    port: int
    path: str
    tokens: list[str]
    nonce: str
    rate: float
    seconds: float
    host: str = "127.0.0.1"


class Answers(msgspec.Struct, frozen=True):
    """Times in seconds from the moment at which a request was due. `errors`: neither served nor refused; `fault` is the first."""

    sent: int
    served: int
    refused: int
    errors: int
    fault: str
    served_p50: float
    served_p99: float
    refused_p50: float
    refused_p99: float
    connections: int
    skipped: int  # because the client itself was late
    cpu_s: float  # of the client


class Caller(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self._buffer = b""
        self._number = 0
        self._due = 0.0
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def call(self, number: int, due: float) -> None:
        assert self._transport is not None
        self._number, self._due = number, due
        self._transport.write(self._crowd.script.request(number))

    def data_received(self, data: bytes) -> None:
        if not self._buffer and data in self._crowd.refusals:
            number, self._number = self._number, 0
            self._crowd.hear(self, number, perf_counter() - self._due, (503, b""))
            return
        self._buffer = self._buffer + data if self._buffer else data
        try:
            reply = whole_reply(self._buffer)
        except ValueError as error:
            self.close()
            self._crowd.fail(str(error))
            return
        if reply is not None:
            if reply[0] == 503 and len(self._crowd.refusals) < REFUSALS_MAX:
                self._crowd.refusals.add(self._buffer)
            self._buffer = b""
            number, self._number = self._number, 0
            self._crowd.hear(self, number, perf_counter() - self._due, reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._crowd.lose(self, self._number > 0)

    def close(self) -> None:
        self._number = 0
        if self._transport is not None:
            self._transport.close()


class Crowd:
    """All callers, and what they were answered."""

    def __init__(self, job: OpenJob) -> None:
        self._job = job
        self._workload = WORKLOADS[job.workload]
        self.script = Script(self._workload, (job.host, job.port, job.path), job.tokens, job.nonce)
        self.refusals: set[bytes] = set()
        self._idle: deque[Caller] = deque()
        self._open: set[Caller] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._outstanding = self._errors = 0
        self._fault = ""
        self._times: dict[int, list[float]] = {200: [], 503: []}

    async def run(self) -> Answers:
        """Sends what is due every TICK, and waits for the last replies."""
        for _ in range(CONNECTED):
            self._idle.append(await self._connect())
        began, sent, skipped, cpu = perf_counter(), 0, 0, process_time()
        while (now := perf_counter()) < began + self._job.seconds:
            due = int((now - began) * self._job.rate)
            oldest = max(sent, due - int(LATE_MAX * self._job.rate) - 1)
            skipped += oldest - sent
            for number in range(oldest, due):
                self._send(FIRST_ID + 1 + number, began + number / self._job.rate)
            sent = due
            await asyncio.sleep(TICK)
        end = perf_counter() + GRACE
        while self._outstanding and perf_counter() < end:  # noqa: ASYNC110 (not in a hurry)
            await asyncio.sleep(0.02)
        if self._outstanding:
            self.fail("no reply in time", self._outstanding)
        served, refused = (sorted(times) for times in self._times.values())
        result = Answers(
            sent=sent - skipped,
            served=len(served),
            refused=len(refused),
            errors=self._errors,
            fault=self._fault,
            served_p50=percentile(served, 0.5),
            served_p99=percentile(served, 0.99),
            refused_p50=percentile(refused, 0.5),
            refused_p99=percentile(refused, 0.99),
            connections=len(self._open),
            skipped=skipped,
            cpu_s=process_time() - cpu,
        )
        for caller in list(self._open):
            caller.close()
        return result

    def hear(self, caller: Caller, number: int, seconds: float, reply: tuple[int, bytes]) -> None:
        self._outstanding -= 1
        self._idle.append(caller)
        status, body = reply
        fault = ""
        if status == 200:
            fault = self._workload.fault(body, number, self.script.text(number))
        elif status != 503:
            fault = f"HTTP {status}: {body[:300]!r}"
        if fault:
            self._errors += 1
            self._fault = self._fault or fault
        else:
            self._times[status].append(seconds)

    def fail(self, fault: str, times: int = 1) -> None:
        """Counts requests without a right answer."""
        self._outstanding -= times
        self._errors += times
        self._fault = self._fault or fault

    def lose(self, caller: Caller, busy: bool) -> None:
        """Forgets a closed connection. The connection that waited longest is used next, so a closed one is rarely chosen."""
        self._open.discard(caller)
        if caller in self._idle:
            self._idle.remove(caller)
        if busy:
            self.fail("the connection was lost")

    def _send(self, number: int, due: float) -> None:
        self._outstanding += 1
        if self._idle:
            self._idle.pop().call(number, due)
        elif len(self._open) + len(self._opening) < CONNECTIONS_MAX:
            task = asyncio.create_task(self._connect_and_call(number, due))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            self.fail("no connection was free")

    async def _connect(self) -> Caller:
        loop = asyncio.get_running_loop()
        _, caller = await loop.create_connection(lambda: Caller(self), self._job.host, self._job.port)
        self._open.add(caller)
        return caller

    async def _connect_and_call(self, number: int, due: float) -> None:
        try:
            caller = await self._connect()
        except OSError as error:
            self.fail(f"no connection: {error}")
            return
        caller.call(number, due)


def main(job_file: str) -> None:
    job = msgspec.json.decode(Path(job_file).read_bytes(), type=OpenJob)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answers = runner.run(Crowd(job).run())
    sys.stdout.buffer.write(msgspec.json.encode(answers))


if __name__ == "__main__":
    main(sys.argv[1])
