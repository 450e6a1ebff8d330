"""What is measured of A2A beside SendMessage: streams, tasks asked for, translation, and many subscribers who wait."""

import asyncio
import json
import secrets
from dataclasses import replace
from time import perf_counter
from typing import Any

from tests.bench.answers import LISTED
from tests.bench.echo_agents import WAITS
from tests.bench.figures import Run, Subscribers
from tests.bench.interlock import PATHS, send_request
from tests.bench.processes import BenchFailure, cpu_seconds, resident_mb
from tests.bench.rounds import LoadClient, Plan, Target, measure_rows

_SETTLE, _LOOK = 2.0, 4.0  # seconds until all is quiet, and in which the CPU of waiting is counted
_AT_ONCE = 32
_VERSION = {"A2A-Version": "1.0"}


def beside_runs(client: LoadClient, plan: Plan, plain: list[Target], gateway: Target, listers: list[str]) -> list[Run]:
    """Streams, GetTask and ListTasks over 16 connections, and both translations over one, next to a call that needs none.

    `listers`: tokens of as many people who have no tasks yet.
    """
    known = replace(gateway, subjects={"a2a_get": [_complete_task(gateway, token) for token in gateway.tokens]})
    shared = replace(plan, workloads=("a2a_stream", "a2a_burst", "a2a_get"))
    runs = measure_rows(client, shared, [*(_with_subjects(target) for target in plain), known], connections=(16,))
    for token in listers * LISTED:
        _complete_task(gateway, token)
    runs += measure_rows(client, replace(plan, workloads=("a2a_list",)), [*plain, replace(gateway, tokens=listers)], connections=(16,))
    return runs + measure_rows(client, replace(plan, workloads=("a2a", "a2a_from_0_3", "a2a_to_0_3")), [gateway], "+pair", (1,))


def measure_subscribers(plan: Plan, gateway: Target) -> Subscribers:
    """Memory and CPU of clients who subscribed to tasks that wait for an answer, each to a task of its own."""
    return asyncio.run(_Waiting(gateway).measure(plan.subscribers))


def _with_subjects(target: Target) -> Target:
    return replace(target, subjects={"a2a_get": [f"t_{number:026d}" for number in range(len(target.tokens))]})


def _complete_task(gateway: Target, token: str) -> str:
    """The id of a completed task of this person."""
    params = {"message": {"messageId": secrets.token_hex(8), "role": "ROLE_USER", "parts": [{"text": "one task"}]}}
    document = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
    status, body = send_request(gateway.running, PATHS["a2a"], token, document, _VERSION)
    if status != 200 or "result" not in (reply := json.loads(body)):
        raise BenchFailure(f"no task: HTTP {status} {body[:500]!r}")
    return str(reply["result"]["task"]["id"])


class _Waiting:
    """Subscribers of a gateway."""

    def __init__(self, gateway: Target) -> None:
        self._gateway = gateway
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def measure(self, count: int) -> Subscribers:
        tokens = [self._gateway.tokens[number % len(self._gateway.tokens)] for number in range(count)]
        await asyncio.gather(*(self._start_waiting_task(token) for token in tokens[:_AT_ONCE]))  # what the first of all cost is not theirs
        tasks = await asyncio.gather(*(self._start_waiting_task(token) for token in tokens))
        await asyncio.sleep(_SETTLE)
        before = resident_mb(self._gateway.running.pid)
        streams = await asyncio.gather(*(self._subscribe(token, task) for token, task in zip(tokens, tasks, strict=True)))
        await asyncio.sleep(_SETTLE)
        grown = resident_mb(self._gateway.running.pid) - before
        cpu, since = cpu_seconds(self._gateway.running.pid), perf_counter()
        await asyncio.sleep(_LOOK)
        used = (cpu_seconds(self._gateway.running.pid) - cpu) / (perf_counter() - since)
        for _, writer in streams:
            writer.close()
        return Subscribers(count, grown * 1e3 / count, used * 100)

    async def _start_waiting_task(self, token: str) -> str:
        """The id of a task that waits for its user."""
        params = {"message": {"messageId": secrets.token_hex(8), "role": "ROLE_USER", "parts": [{"text": f"{WAITS}which size?"}]}}
        async with self._turns:
            reader, writer = await self._request(token, "SendMessage", params)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            body = await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            writer.close()
        task = json.loads(body).get("result", {}).get("task", {})
        if task.get("status", {}).get("state") != "TASK_STATE_INPUT_REQUIRED":
            raise BenchFailure(f"not a task that waits: {body[:500]!r}")
        return str(task["id"])

    async def _subscribe(self, token: str, task: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A stream whose first event, the task, was read."""
        async with self._turns:
            reader, writer = await self._request(token, "SubscribeToTask", {"id": task})
            try:
                first = (await reader.readuntil(b"\n\n\r\n")).partition(b"data: ")[2].strip()
            except asyncio.IncompleteReadError as answer:
                raise BenchFailure(f"no stream of {task}: {answer.partial!r}") from answer
        if json.loads(first)["result"]["task"]["id"] != task:
            raise BenchFailure(f"not the task {task}: {first[:500]!r}")
        return reader, writer

    async def _request(self, token: str, method: str, params: dict[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        port = self._gateway.running.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        head = f"POST {PATHS['a2a']} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\nA2A-Version: 1.0\r\n"
        writer.write(f"{head}Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        return reader, writer
