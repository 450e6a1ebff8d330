"""A gateway at half of its capacity, with many streams held: what it loses, and how its memory and descriptors develop."""

import asyncio
import itertools
import json
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.gateway_runs import serve_registered
from tests.bench.interlock import PATHS, Home, send_request
from tests.bench.load import whole_reply
from tests.bench.processes import BenchFailure, asgi_server, cpu_seconds, resident_mb
from tests.bench.rounds import Target
from tests.bench.workload import FIRST_ID, WORKLOADS, Script
from tests.fakes.waiting import until
from tests.soak import ticking

SAMPLE_SECONDS = 10.0
CALLERS = 16
KINDS = ("mcp", "a2a")  # what the callers do, in turns
OPEN_SECONDS = 120.0  # in which all streams open
USERS = 50
AT_ONCE = 50  # streams that open at the same time
AGENT = "ticking-agent"
_TICK = re.compile(rb"tick (\d+) of (\d+)")
_MESSAGE = b'{"messageId":"%b","role":"ROLE_USER","parts":[{"text":"tick"}]}'
_BODY = b'{"jsonrpc":"2.0","id":1,"method":"SendStreamingMessage","params":{"message":%b}}' % _MESSAGE


@dataclass(frozen=True, slots=True)
class SteadyPlan:
    """How long, with how many streams, and how many ticks each has, so many seconds apart.

    `warm_up`: seconds after all streams are open, before the first sample.
    """

    minutes: float
    streams: int
    ticks: int = 12
    tick_seconds: float = 5.0
    warm_up: float = 20.0
    capacity_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """The state of the gateway after `seconds`."""

    seconds: float
    memory_mb: float
    descriptors: int
    cpu_s: float


@dataclass(slots=True)
class Soaked:
    """What was seen: served and failed calls, streams read to their end, and events lost on them."""

    capacity_req_s: float = 0.0
    served: int = 0
    events: int = 0
    ended: int = 0
    lost: int = 0
    failed: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


def soak(folder: Path, plan: SteadyPlan, report: Callable[[str], None]) -> Soaked:
    """Runs a gateway with shipped defaults, but room for the streams. Raises BenchFailure."""
    environment = {ticking.COUNT_VARIABLE: str(plan.ticks), ticking.SECONDS_VARIABLE: str(plan.tick_seconds)}
    limits = {"limits": {"calls_per_upstream": 4 * plan.streams + 400, "calls": 8 * plan.streams + 1000}}
    home = Home.fresh(folder / "home", limits)
    with asgi_server("tests.soak.ticking:ticking", folder, **environment) as upstream, serve_registered(home, upstream, USERS) as target:
        offer = {"url": f"{upstream.url}{ticking.PATH}", "name": AGENT}
        status, said = send_request(target.running, "/api/agents", home.admin_token(), offer)
        if status != 201:
            raise BenchFailure(f"the agent was not registered: {status} {said[:500]!r}")
        return asyncio.run(_Soak(plan, target, report).run())


class _Soak:
    def __init__(self, plan: SteadyPlan, target: Target, report: Callable[[str], None]) -> None:
        self._plan, self._target, self._report = plan, target, report
        self._over, self._numbers = asyncio.Event(), itertools.count(FIRST_ID)
        self._opening = asyncio.Semaphore(AT_ONCE)
        self._held = 0
        self.seen = Soaked()

    async def run(self) -> Soaked:
        self.seen.capacity_req_s = await self._measure_capacity()
        self._report(f"  capacity {self.seen.capacity_req_s:.0f} calls/s; opening {self._plan.streams} streams")
        streams = [asyncio.create_task(self._hold(number)) for number in range(self._plan.streams)]
        pause = CALLERS / (self.seen.capacity_req_s / 2)
        callers = [asyncio.create_task(self._call_until_over(number, pause)) for number in range(CALLERS)]
        await self._sample()
        self._over.set()
        await asyncio.gather(*callers, *streams)
        return self.seen

    async def _measure_capacity(self) -> float:
        """Returns how many calls a second the callers get without a pause."""
        began, callers = time.monotonic(), [asyncio.create_task(self._call_until_over(number, 0.0)) for number in range(CALLERS)]
        await asyncio.sleep(self._plan.capacity_seconds)
        self._over.set()
        await asyncio.gather(*callers)
        served, self.seen.served = self.seen.served, 0
        self._over.clear()
        return served / (time.monotonic() - began)

    async def _sample(self) -> None:
        await until(lambda: self._held >= self._plan.streams or bool(self.seen.failed), seconds=OPEN_SECONDS, every=0.1)
        await asyncio.sleep(self._plan.warm_up)
        began, pid = time.monotonic(), self._target.running.pid
        while (spent := time.monotonic() - began) <= self._plan.minutes * 60 + 1:
            sample = Sample(spent, resident_mb(pid), _count_descriptors(pid), cpu_seconds(pid))
            self.seen.samples.append(sample)
            self._report(
                f"  [{spent:.0f} s] {sample.memory_mb:.1f} MB, {sample.descriptors} descriptors, {self._held} streams, "
                f"{self.seen.served} calls, {self.seen.events} events, {self.seen.lost} lost, {len(self.seen.failed)} failed"
            )
            await asyncio.sleep(SAMPLE_SECONDS if self._plan.minutes else 2.0)

    async def _call_until_over(self, number: int, pause: float) -> None:
        """Calls on one connection, each call `pause` seconds after the one before it was due."""
        kind = KINDS[number % len(KINDS)]
        work, port = WORKLOADS[kind], self._target.running.port
        script = Script(work, ("127.0.0.1", port, PATHS[kind]), self._target.tokens, secrets.token_hex(4))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due = time.monotonic() + pause * number / CALLERS
        while not self._over.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()) if pause else 0)
            due = max(due + pause, time.monotonic() - 1)
            request = next(self._numbers)
            writer.write(script.request(request))
            status, body = await _read_reply(reader)
            if fault := work.fault(body, request, script.text(request)) if status == work.status else f"HTTP {status}":
                self.seen.failed.append(f"{kind}: {fault}"[:300])
            else:
                self.seen.served += 1
        writer.close()

    async def _hold(self, number: int) -> None:
        """Holds one stream after the other, until all is over; the last one is read to its end."""
        token = self._target.tokens[number % len(self._target.tokens)]
        while not self._over.is_set():
            reader, writer = await self._open(token)
            self._held += 1
            ticks = await self._read_ticks(reader)
            self._held -= 1
            writer.close()
            self.seen.ended += 1
            self.seen.lost += count_lost(ticks, self._plan.ticks)

    async def _open(self, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        async with self._opening:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._target.running.port)
            body = _BODY % secrets.token_hex(8).encode()
            lines = {
                "Host": f"127.0.0.1:{self._target.running.port}",
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "Authorization": f"Bearer {token}",
                "A2A-Version": "1.0",
                "Accept": "text/event-stream",
            }
            writer.write(
                f"POST /agents/{AGENT} HTTP/1.1\r\n".encode() + "".join(f"{k}: {v}\r\n" for k, v in lines.items()).encode() + b"\r\n" + body
            )
            await reader.readuntil(b"data: ")
        return reader, writer

    async def _read_ticks(self, reader: asyncio.StreamReader) -> list[int]:
        """Returns the numbers of the ticks in the order in which they came, up to the end of the task."""
        ticks = []
        try:
            while line := await reader.readline():
                found = [int(tick[1]) for tick in _TICK.finditer(line)]
                ticks += found
                self.seen.events += len(found)
                if b"TASK_STATE_COMPLETED" in line:
                    return ticks
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        self.seen.failed.append(f"a stream broke off after {len(ticks)} events")
        return ticks


def _count_descriptors(pid: int) -> int:
    return len([*Path(f"/proc/{pid}/fd").iterdir()])


def count_lost(ticks: Sequence[int], wanted: int) -> int:
    """How many events are missing, repeated or out of order."""
    return len(set(range(wanted)) - set(ticks)) + len(ticks) - len(set(ticks)) + (ticks != sorted(ticks))


async def _read_reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    data = b""
    while (reply := whole_reply(data) if data else None) is None:
        more = await reader.read(65_536)
        if not more:
            raise BenchFailure(f"a connection was closed after {json.dumps(data[:200].decode(errors='replace'))}")
        data += more
    return reply
