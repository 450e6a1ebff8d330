"""A process that is told to end finishes what it can, refuses the rest with a typed answer, and leaves no task without an owner."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aiohttp

from tests.fakes.waiting import until
from tests.journeys.kills import CUT, META, TERMINAL, VERSION, Town, tasks_in, town

WAITS_FOR_PEOPLE = """
document: {dsl: 1.0.3, namespace: tests, name: order, version: 1.0.0, summary: Asks people.}
do:
- ask: {call: gateway.approve, with: {prompt: "Sell?", expires: P7D}}
"""


def message(said: str, **configuration: Any) -> dict[str, Any]:
    return {"message": {"messageId": said, "role": "ROLE_USER", "parts": [{"text": said}]}, "configuration": configuration}


class Client:
    """Sends requests of one person, and keeps status, headers and body of each answer."""

    def __init__(self, built: Town) -> None:
        self._built = built
        self._token = built.gateway.tokens()["first"]

    async def rpc(self, method: str, params: Any, path: str = "/agents/agent", **headers: str) -> tuple[int, Any, str]:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        sent = {"authorization": f"Bearer {self._token}", **(headers or VERSION)}
        async with self._built.http.post(f"{self._built.gateway.url}{path}", json=body, headers=sent) as answer:
            return answer.status, answer.headers, await answer.text()

    async def call(self, said: str) -> tuple[int, Any, str]:
        params = {"name": "echo", "arguments": {"text": said}, "_meta": META}
        headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "echo"}
        return await self.rpc("tools/call", params, "/mcp/server", **headers)

    async def readiness(self) -> tuple[int, Any, Any]:
        async with self._built.http.get(f"{self._built.gateway.url}/readyz") as answer:
            return answer.status, answer.headers, await answer.json()


async def begun(built: Town, count: int) -> None:
    await until(lambda: built.upstream.slow == count, seconds=60)


def end(built: Town) -> "asyncio.Future[int]":
    """Sends SIGTERM; the exit status of the process."""
    return asyncio.ensure_future(asyncio.to_thread(built.gateway.stop, signal.SIGTERM))


async def test_a_call_beyond_the_grace_gets_a_typed_error_and_its_task_ends(tmp_path: Path) -> None:
    async with town(tmp_path / "town", f"sqlite:///{tmp_path / 'interlock.db'}") as built:
        built.gateway.configure(server={"drain": 0.5, "drain_delay": 1.5})
        await built.start()
        client = Client(built)
        waiting = asyncio.create_task(client.rpc("SendMessage", message("slow waiting")))
        streaming = asyncio.create_task(client.rpc("SendStreamingMessage", message("slow streaming")))
        started = await client.rpc("SendMessage", message("slow started", returnImmediately=True))
        await begun(built, 3)
        ended = end(built)

        async def is_unready() -> bool:
            status, headers, body = await client.readiness()
            return (status, body["checks"]["serving"], headers.get("connection")) == (503, False, "close")

        await until(is_unready, every=0.02)
        status, headers, _ = await client.rpc("GetTask", {"id": json.loads(started[2])["result"]["task"]["id"]})
        assert (status, headers["connection"]) == (200, "close")  # the listener is open as long as balancers may still send here

        status, headers, text = await waiting
        error = json.loads(text)["error"]
        assert (status, error["code"], headers["retry-after"], headers["connection"]) == (503, -32013, "1", "close")
        tasks = tasks_in(built.gateway)
        assert error["data"][0]["reason"] == "SHUTTING_DOWN" and error["data"][0]["metadata"]["taskId"] in tasks
        status, _, text = await streaming
        assert status == 200 and text.count("data: ") >= 1  # cut in order: the body was read to its end
        assert await ended == 0

        await built.start()
        found = [(state, json.loads(log[-1][2])["message"]["parts"][0]["text"]) for state, _, log in tasks_in(built.gateway).values()]
        assert found == [("TASK_STATE_FAILED", CUT)] * 3


async def test_what_ends_within_the_grace_is_answered_and_the_process_ends_at_once(tmp_path: Path) -> None:
    async with town(tmp_path / "town", f"sqlite:///{tmp_path / 'interlock.db'}") as built:
        built.gateway.configure(server={"drain": 600, "drain_delay": 0})
        await built.start()
        client = Client(built)
        waiting = asyncio.create_task(client.rpc("SendMessage", message("slow waiting")))
        await client.rpc("SendMessage", message("slow started", returnImmediately=True))
        await begun(built, 2)
        ended = end(built)

        async def is_closed() -> bool:
            try:
                await client.readiness()
                return False
            except (aiohttp.ClientError, ConnectionError):
                return True

        await until(is_closed, every=0.02)
        built.upstream.gate.set()
        status, headers, text = await waiting
        assert (status, json.loads(text)["result"]["task"]["status"]["state"]) == (200, "TASK_STATE_COMPLETED")
        assert headers["connection"] == "close"
        assert await ended == 0
        assert {state for state, _, _ in tasks_in(built.gateway).values()} == {"TASK_STATE_COMPLETED"} <= TERMINAL


async def test_streams_of_what_no_turn_works_on_end_with_the_listener(tmp_path: Path) -> None:
    """A process that somebody watches ends as soon as one that is idle."""
    async with town(tmp_path / "town", f"sqlite:///{tmp_path / 'interlock.db'}") as built:
        (tmp_path / "workflows").mkdir()
        (tmp_path / "workflows" / "order.yaml").write_text(WAITS_FOR_PEOPLE)
        everything = {"roles": {"operator": ["*"]}, "users": {"first": {"roles": ["operator"]}}}
        built.gateway.configure(server={"drain": 600}, workflows=str(tmp_path / "workflows"), **everything)
        await built.start()
        url, headers = built.gateway.url, {"authorization": f"Bearer {built.gateway.tokens()['first']}", **VERSION}
        async with built.http.post(f"{url}/api/workflows/order/runs", json={"input": {}}, headers=headers) as answer:
            run = (await answer.json())["id"]

        async def is_waiting() -> bool:
            async with built.http.get(f"{url}/api/checkpoints", headers=headers) as answer:
                return bool((await answer.json())["items"])

        await until(is_waiting, every=0.05)
        sent = {"headers": {**headers, "accept": "text/event-stream"}}
        streams = [
            await built.http.get(f"{url}{path}", **sent)
            for path in ("/api/state", "/api/events", "/api/checkpoints/events", f"/api/runs/{run}/events", f"/api/tasks/{run}/events")
        ]
        streams.append(await built.http.get(f"{url}/agents/order/tasks/{run}:subscribe", headers=headers))
        subscribe = {"jsonrpc": "2.0", "id": 1, "method": "SubscribeToTask", "params": {"id": run}}
        streams.append(await built.http.post(f"{url}/agents/order", json=subscribe, headers=headers))
        assert [stream.status for stream in streams] == [200] * 7
        assert await asyncio.to_thread(built.gateway.stop, signal.SIGINT) == 0  # within 120 s, although the grace is longer
        for stream in streams:
            await stream.read()  # to its end: a stream that was cut raises
        assert '"event": "gateway_stopped", "seconds": ' in built.gateway.log()
