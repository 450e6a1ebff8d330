"""A gateway process is killed or drained while agents work: the next process finishes the turns, and no agent is asked twice."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from a2a.helpers.proto_helpers import new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.tasks import TaskUpdater
from sqlalchemy import text

from tests.fakes.a2a_agents import Recorded, a2a_agent, serving
from tests.fakes.cards import streaming_card
from tests.fakes.graph_server import GraphServer
from tests.fakes.waiting import until
from tests.journeys.kills import TERMINAL, VERSION, Gateway, is_ready, tasks_in


class LongWork(AgentExecutor):
    """An agent that gives half of its answer at once, and the other half when the gate opens."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = asyncio.Event()

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        self.asked.append(context.get_user_input())
        task = new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        await updater.start_work()
        await updater.add_artifact([new_text_part("first half, ")], artifact_id="answer", append=False, last_chunk=False)
        await self.gate.wait()
        await updater.add_artifact([new_text_part("second half")], artifact_id="answer", append=True, last_chunk=True)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()


class Relay:
    """A gateway process, the one that comes after it, and two agents that work until they are released."""

    def __init__(self, gateway: Gateway, http: aiohttp.ClientSession, work: LongWork, desk: Recorded, graph: GraphServer) -> None:
        self._http, self._work, self._graph = http, work, graph
        self._host = urlsplit(gateway.url).netloc
        self.desk = desk
        self.first = gateway
        self.second = gateway if gateway.database_url.startswith("sqlite") else gateway.sibling()

    async def start(self, gateway: Gateway) -> None:
        gateway.start()
        await until(lambda: is_ready(self._http, gateway), every=0.03)

    async def end_first(self, number: signal.Signals) -> int:
        """Ends the first process, makes sure that the second one is up, and returns the exit status of the first."""
        status = await asyncio.to_thread(self.first.stop, number)
        if self.second is self.first:
            await self.start(self.second)
        return status

    async def send(self, gateway: Gateway, agent: str, said: str, key: str = "") -> tuple[int, Any]:
        """Sends a message; with an idempotency key it waits for the answer. Returns the HTTP status and the JSON."""
        message = {"messageId": said, "role": "ROLE_USER", "parts": [{"text": said}]}
        params = {"message": message, "configuration": {"returnImmediately": not key}}
        return await self._rpc(gateway, agent, "SendMessage", params, {"idempotency-key": key} if key else {})

    async def task(self, gateway: Gateway, agent: str, task_id: str) -> Any:
        return (await self._rpc(gateway, agent, "GetTask", {"id": task_id}))[1]["result"]

    async def _rpc(self, gateway: Gateway, agent: str, method: str, params: Any, more: dict[str, str] | None = None) -> tuple[int, Any]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        bearer = f"Bearer {gateway.tokens(self.first.url)['first']}"
        headers = {"authorization": bearer, "host": self._host, **VERSION, **(more or {})}
        async with self._http.post(f"{gateway.url}/agents/{agent}", json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    def are_at_work(self) -> bool:
        """Whether both agents work, and all that the gateway has of them is stored: their names for the tasks and the half answer."""
        with self.first.reading() as connection:
            refs = [json.loads(ref) for ref in connection.execute(text("SELECT vendor_ref FROM tasks")).scalars()]
        halves = [body for _, _, log in tasks_in(self.first).values() for _, _, body in log if "first half" in body]
        return len(refs) == 2 and all(ref.get("task_id") for ref in refs) and len(halves) == 1

    def is_desk_asked_again(self) -> bool:
        """Whether a process has asked the agent how its task stands."""
        return bool({"GetTask", "SubscribeToTask"} & set(self.desk.methods))

    def has_ended(self) -> bool:
        return {state for state, _, _ in tasks_in(self.second).values()} <= TERMINAL

    def release(self) -> None:
        self._work.gate.set()
        self._graph.go_on.set()

    @property
    def asked(self) -> list[str]:
        """All that the agents were ever asked to do."""
        return self._work.asked + [said["input"]["messages"][0]["content"] for _, said in self._graph.bodies]


@asynccontextmanager
async def relay(folder: Path, database_url: str) -> AsyncIterator[Relay]:
    work, graph = LongWork(), GraphServer()
    desk = a2a_agent(executor=work)
    async with AsyncExitStack() as stack:
        desk_url, graph_url = [await stack.enter_async_context(serving(app)) for app in (desk, graph)]
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)))
        gateway = Gateway(folder, database_url, desk_url)
        agents = [
            {"name": "desk", "card": streaming_card("desk", desk_url, "work")},
            {"name": "graph", "kind": "langgraph", "url": graph_url, "upstream": {"assistant": "echo"}},
        ]
        gateway.configure(agents=agents, servers=[], server={"public_url": gateway.url, "drain": 0.2, "drain_delay": 0})
        built = Relay(gateway, http, work, desk, graph)
        try:
            yield built
        finally:
            built.release()
            built.first.stop(signal.SIGKILL)
            built.second.stop(signal.SIGKILL)


def answer_of(task: Any) -> str:
    return "".join(part["text"] for artifact in task["artifacts"] for part in artifact["parts"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
async def test_the_next_process_finishes_what_agents_are_at_work_on(number: signal.Signals, database_url: str, tmp_path: Path) -> None:
    async with relay(tmp_path / "relay", database_url) as built:
        await built.start(built.first)
        if built.second is not built.first:
            await built.start(built.second)
        waiting = asyncio.create_task(built.send(built.first, "desk", "write", key="once"))
        _, begun = await built.send(built.first, "graph", "wait for it")
        await until(built.are_at_work, every=0.05)

        status = await built.end_first(number)
        assert status == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        if number == signal.SIGTERM:
            code, refused = await waiting
            (details,) = [each for each in refused["error"]["data"] if each.get("reason") == "SHUTTING_DOWN"]
            assert code == 503 and details["metadata"]["taskId"] in tasks_in(built.second)
        else:
            with pytest.raises((aiohttp.ClientError, ConnectionError)):
                await waiting

        again = asyncio.create_task(built.send(built.second, "desk", "write", key="once"))
        await until(lambda: built.is_desk_asked_again() or built.has_ended(), every=0.05)
        built.release()
        written = (await again)[1]["result"]["task"]
        assert (written["status"]["state"], answer_of(written)) == ("TASK_STATE_COMPLETED", "first half, second half")

        graph_task = begun["result"]["task"]["id"]
        await until(built.has_ended, every=0.05)
        echoed = await built.task(built.second, "graph", graph_task)
        assert (echoed["status"]["state"], answer_of(echoed)) == ("TASK_STATE_COMPLETED", "echo: wait for it")

        assert sorted(built.asked) == ["wait for it", "write"]
        assert {*tasks_in(built.second)} == {written["id"], graph_task}
        _assert_each_ended_once(built.second)


def _assert_each_ended_once(gateway: Gateway) -> None:
    for state, runner, log in tasks_in(gateway).values():
        states = [json.loads(body)["state"] for _, kind, body in log if kind == "status"]
        assert [each for each in states if each in TERMINAL] == ["TASK_STATE_COMPLETED"] == [state]
        assert runner == "" and [seq for seq, _, _ in log] == list(range(1, len(log) + 1))
