"""kill -9 takes no task from an MCP client: waiting tasks go on waiting, answers stay, and turns go on in the next process."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.bench.interlock import send_request
from tests.bench.processes import ROOT, BenchFailure, Running, await_port, environment, run_process
from tests.conformance.stage import Address, address, serving, token
from tests.fakes.a2a_agents import serving as loopback_server
from tests.fakes.mcp_task_server import TaskServer
from tests.fakes.mcp_tasks import ENDED, TAKES
from tests.fakes.mcp_wire import modern
from tests.fakes.ports import free_port

YES = {"action": "accept", "content": {"confirm": True}}
ADA = {"action": "accept", "content": {"name": "Ada"}}


class Work:
    """What the agent's jobs do: done while there is this file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def done(self) -> None:
        self.file.touch()

    def lasts(self) -> None:
        self.file.unlink()


class Client:
    """Of 2026-07-28, that takes tasks."""

    def __init__(self, at: Address, bearer: str) -> None:
        self._url = f"http://127.0.0.1:{at.port}/mcp"
        self._headers = {"authorization": f"Bearer {bearer}", "host": f"127.0.0.1:{at.public}", "content-type": "application/json"}

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        body, headers = modern(method, params, TAKES)
        named = {"mcp-name": params["taskId"]} if "taskId" in params else {}
        async with httpx.AsyncClient(timeout=60) as http:
            answer = (await http.post(self._url, json=body, headers={**self._headers, **headers, **named})).json()
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def begin(self, tool: str, **arguments: Any) -> str:
        result = await self.ask("tools/call", name=tool, arguments=arguments)
        assert result["resultType"] == "task", result
        return str(result["taskId"])

    async def seen(self, task: str, *states: str) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while True:
                shown = await self.ask("tasks/get", taskId=task)
                if shown["status"] in states:
                    return shown
                await asyncio.sleep(0.1)  # between two looks


async def test_tasks_survive_a_gateway_that_is_killed(tmp_path: Path) -> None:
    at = address(False)
    work = Work(tmp_path / "done")
    with _agent(tmp_path, work) as agent:
        async with loopback_server(TaskServer()) as desk:
            with pytest.raises(BenchFailure, match="-9"), serving(tmp_path, at) as gateway:
                admin = token(tmp_path, at, "admin")
                for path, offer in (("agents", {"url": agent.url, "name": "jobs"}), ("servers", {"url": f"{desk}mcp", "name": "desk"})):
                    status, said = await asyncio.to_thread(send_request, gateway, f"/api/{path}", admin, offer)
                    assert status == 201, said
                client = Client(at, token(tmp_path, at, "kim"))
                kept = await _begun(client, work)
                os.kill(gateway.pid, signal.SIGKILL)
                await asyncio.to_thread(os.waitid, os.P_PID, gateway.pid, os.WEXITED | os.WNOWAIT)  # not yet reaped
            with serving(tmp_path, at):
                await _found_again(client, kept, work)


async def _begun(client: Client, work: Work) -> dict[str, dict[str, Any]]:
    """One task of each kind, as it is shown before the gateway is killed."""
    waiting, half = await client.begin("jobs_confirm_delete"), await client.begin("jobs_multi_input")
    servers, done = await client.begin("desk_greet"), await client.begin("jobs_slow_compute", label="done")
    work.done()
    first = next(iter((await client.seen(half, "input_required"))["inputRequests"]))
    await client.ask("tasks/update", taskId=half, inputResponses={first: ADA})
    shown = {"waiting": waiting, "half": half, "servers": servers}
    found = {name: await client.seen(task, "input_required") for name, task in shown.items()}
    found["done"] = await client.seen(done, *ENDED)
    work.lasts()
    return {**found, "working": await client.seen(await client.begin("jobs_slow_compute"), "working")}


async def _found_again(client: Client, kept: dict[str, dict[str, Any]], work: Work) -> None:
    work.done()
    resumed = await client.seen(kept["working"]["taskId"], *ENDED)
    assert resumed["status"] == "completed", resumed
    for name in ("waiting", "half", "servers", "done"):
        assert await client.ask("tasks/get", taskId=kept[name]["taskId"]) == kept[name], name
    for name, answer in (("waiting", YES), ("half", YES), ("servers", ADA)):
        task, questions = kept[name]["taskId"], kept[name]["inputRequests"]
        await client.ask("tasks/update", taskId=task, inputResponses=dict.fromkeys(questions, answer))
        ended = await client.seen(task, *ENDED)
        assert ended["status"] == "completed"
        said = ended["result"]["content"][0]["text"]
        assert ("Ada" in said) == (name != "waiting") and ("confirm" in said) == (name != "servers")


@contextmanager
def _agent(folder: Path, work: Work) -> Iterator[Running]:
    port = free_port()
    command = [sys.executable, "-m", "tests.conformance.jobs_agent", "--port", str(port), "--until", str(work.file)]
    with run_process(command, port=port, cwd=ROOT, log=folder / "jobs.log", env=environment()) as running:
        await_port(running, seconds=60)
        yield running
