"""Agents whose streams lie: exactly one terminal state, a typed failure in each door's own words, bounded memory, and others go on."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from a2a.types import GetTaskRequest, Task, TaskState
from google.protobuf.json_format import MessageToDict

from gateway.tasks.turns.transitions import ERROR_METADATA
from tests.fakes.house import CallbackAgent, House
from tests.fakes.reference_clients import EVERY_DOOR, client_of, every_door, request
from tests.fakes.upstream import Upstream, answer

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
JSON, SSE = "Content-Type: application/json", b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
TERMINAL = {f"TASK_STATE_{state}" for state in ("COMPLETED", "FAILED", "CANCELED", "REJECTED")}
BROKEN, LATE, GONE, TOO_LONG = "INVALID_AGENT_RESPONSE", "AGENT_LATE", "UPSTREAM", "TURN_TOO_LONG"
SECRET = "the-agents-own-words"


def status(state: str, task_id: str = "theirs") -> dict[str, Any]:
    return {"statusUpdate": {"taskId": task_id, "contextId": "c", "status": {"state": f"TASK_STATE_{state}"}}}


def task(state: str) -> dict[str, Any]:
    return {"task": {"id": "theirs", "contextId": "c", "status": {"state": f"TASK_STATE_{state}"}}}


def piece(text: str) -> dict[str, Any]:
    return {"artifactUpdate": {"taskId": "theirs", "contextId": "c", "artifact": {"artifactId": "a", "parts": [{"text": text}]}}}


class Liar:
    """One of them, in either HTTP binding. Asked for its task it says `stands`."""

    def __init__(self, binding: str, lie: "Lie", stands: str) -> None:
        self.binding = binding
        self.lie = lie
        self.stands = stands
        self.sent = 0
        self.left = asyncio.Event()
        self.upstream: Upstream

    async def __call__(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        line = head.split(b"\r\n", 1)[0]
        rpc = self.binding == "JSONRPC"
        self.id = json.loads(self.upstream.bodies[-1])["id"] if rpc else None
        method = json.loads(self.upstream.bodies[-1])["method"] if rpc else ""
        if b"message:stream" in line or method == "SendStreamingMessage":
            writer.write(SSE)
            try:
                await self.lie(self)
            finally:
                self.left.set()
                writer.close()
            return
        writer.write(answer(self.wrapped(task(self.stands)["task"]), "200 OK", JSON))

    def wrapped(self, result: Any) -> bytes:
        return json.dumps(result if self.id is None else {"jsonrpc": "2.0", "id": self.id, "result": result}).encode()

    async def says(self, event: Any) -> None:
        await self.raw(b"data: " + self.wrapped(event) + b"\n\n")

    async def raw(self, chunk: bytes) -> None:
        self.writer.write(chunk)
        await self.writer.drain()
        self.sent += len(chunk)


Lie = Callable[[Liar], Awaitable[None]]


async def garbage(liar: Liar) -> None:
    await liar.says(task("WORKING"))
    await liar.raw(f"data: {{{SECRET}\n\n".encode())


async def never_ends(liar: Liar) -> None:
    await liar.says(task("WORKING"))
    await asyncio.Event().wait()


async def never_stops(liar: Liar) -> None:
    await liar.says(task("WORKING"))
    while not liar.writer.is_closing():
        await liar.says(piece("x" * 100_000))


async def ends_early(liar: Liar) -> None:
    await liar.says(task("WORKING"))
    await liar.says(piece("a beginning"))


async def shouts(liar: Liar) -> None:
    await liar.says(task("WORKING"))
    await liar.says(piece("x" * 10_000_000))


async def tells_of_another(liar: Liar) -> None:
    await liar.says(task("WORKING"))
    await liar.says(status("COMPLETED", "another"))


async def changes_its_mind(liar: Liar) -> None:
    await liar.says(task("WORKING"))
    await liar.says(status("COMPLETED"))
    await liar.says(status("FAILED"))
    await liar.says(status("WORKING"))


async def hangs_up(liar: Liar) -> None:
    await liar.says(task("WORKING"))
    await liar.raw(b'data: {"jsonrpc"')
    liar.writer.transport.abort()


LIES: dict[str, tuple[Lie, str, str, str]] = {  # the lie, what it says when asked for the task, and then the state and why
    "garbage": (garbage, "WORKING", "FAILED", BROKEN),
    "never ends": (never_ends, "WORKING", "FAILED", LATE),
    "never stops": (never_stops, "WORKING", "FAILED", TOO_LONG),
    "ends early, and works on for ever": (ends_early, "WORKING", "FAILED", LATE),
    "ends early, and was done": (ends_early, "COMPLETED", "COMPLETED", ""),
    "ends early, and names no state": (ends_early, "SLEEPING", "FAILED", BROKEN),
    "10 MB": (shouts, "WORKING", "FAILED", BROKEN),
    "another task": (tells_of_another, "WORKING", "FAILED", BROKEN),
    "changes after the end": (changes_its_mind, "FAILED", "COMPLETED", ""),
    "hangs up, and was done": (hangs_up, "COMPLETED", "COMPLETED", ""),
}


async def lying(home: House, name: str, binding: str, what: str) -> Liar:
    lie, stands, _, _ = LIES[what]
    liar = Liar(binding, lie, stands)
    liar.upstream = upstream = await home.stack.enter_async_context(Upstream(liar))
    facts = {"interface": upstream.url, "streaming": True, "binding": binding}
    seconds = 4 if LIES[what][3] == LATE else 60
    await home.registered(name, upstream.url, upstream={"timeout": seconds}, facts=facts)
    return liar


async def streamed(home: House, door: str, agent: str) -> Task:
    """The task as it stands after all of its stream."""
    async with client_of(home, door, agent=agent) as client:
        task_id, ends = "", []
        async for event in client.send_message_streaming(request("hello")):
            task_id = task_id or event.task.id or event.status_update.task_id
            state = TaskState.Name((event.status_update if event.HasField("status_update") else event.task).status.state)
            ends += [state] if state in TERMINAL else []
        assert len(ends) == 1
        found: Task = await client.get_task(GetTaskRequest(id=task_id))
        assert TaskState.Name(found.status.state) == ends[0]
        return found


async def ends_of(home: House, task_id: str) -> list[str]:
    headers = {"authorization": f"Bearer {home.token('alice')}", "accept": "application/json"}
    items = (await home.http.get(f"/api/tasks/{task_id}/events", headers=headers)).json()["items"]
    return [item["status"]["state"] for item in items if item["kind"] == "status" and item["status"]["state"] in TERMINAL]


@pytest.fixture
async def every_home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    """Takes less of one answer than the largest lie has."""
    async with every_door(tmp_path / "home", database_url, limits={"turn_bytes": 4 << 20}) as built:
        yield built


@pytest.mark.parametrize("binding", ["JSONRPC", "HTTP+JSON"])
@pytest.mark.parametrize("door", EVERY_DOOR)
async def test_a_lying_stream_has_one_end_of_a_kind_that_each_door_can_tell(every_home: House, door: str, binding: str) -> None:
    names = {f"liar-{number}": what for number, what in enumerate(LIES)}
    liars = {name: await lying(every_home, name, binding, what) for name, what in names.items()}

    async def prove(name: str, what: str) -> None:
        _, _, state, why = LIES[what]
        found = await streamed(every_home, door, name)
        assert TaskState.Name(found.status.state) == f"TASK_STATE_{state}", what
        told = MessageToDict(found.status.message.metadata).get(ERROR_METADATA, {}) if found.status.HasField("message") else {}
        assert told == ({"reason": why} if why else {}), what
        assert SECRET not in str(found)
        assert await ends_of(every_home, found.id) == [f"TASK_STATE_{state}"], what
        async with asyncio.timeout(60):
            if what == "never stops":
                await liars[name].left.wait()  # we hung up, and read no more than we keep
                assert liars[name].sent < 60 << 20

    async with asyncio.timeout(60):
        outcomes = await asyncio.gather(*(prove(name, what) for name, what in names.items()), return_exceptions=True)
    assert {what: repr(outcome) for what, outcome in zip(LIES, outcomes, strict=True) if outcome is not None} == {}


async def test_others_are_served_while_agents_lie(home: House) -> None:
    """How much slower they get is printed by `python -m tests.bench.faults`."""
    await home.agent(CallbackAgent("honest"))
    for number, what in enumerate(("never stops", "10 MB", "never ends", "garbage")):
        await lying(home, f"liar-{number}", "JSONRPC", what)
    token = home.token("alice")
    lies = [asyncio.create_task(home.send(token, f"liar-{number}", "hello", "SendStreamingMessage")) for number in range(4)]
    for _ in range(20):
        assert (await home.send(token, "honest", "hello"))["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    await asyncio.gather(*lies, return_exceptions=True)
