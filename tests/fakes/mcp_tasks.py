"""An agent with jobs behind a whole gateway, and clients of either era that look after its tasks."""

import asyncio
from typing import Any

import pytest

from gateway.ingress.mcp_server.tasks import agent_tasks
from tests.conformance import jobs_agent
from tests.conformance.jobs_agent import JOBS, application
from tests.fakes.a2a_agents import loopback, serving
from tests.fakes.house import House
from tests.fakes.mcp_wire import document, modern, post

TASKS = "io.modelcontextprotocol/tasks"
TAKES: dict[str, Any] = {"elicitation": {}, "extensions": {TASKS: {}}}
PLACE = "/mcp/virtual/kit"
ENDED = ("completed", "failed", "cancelled")
SECONDS = 60.0


class Pace:
    """Which is over first, a job's work or the gateway's patience, is for the test to say: at first no job is done, and no patience."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._done = asyncio.Event()
        self.under_way = 0
        monkeypatch.setattr(jobs_agent, "work", self._work)
        self.patient(False)

    def patient(self, so: bool = True) -> None:
        """The gateway waits for what comes, or not at all."""
        self._monkeypatch.setattr(agent_tasks, "SYNC_WAIT_SECONDS", 3600.0 if so else 0.0)

    def finish(self) -> None:
        """All that jobs do is done, and takes no time from now on."""
        self._done.set()

    async def _work(self, _seconds: float) -> None:
        self.under_way += 1
        try:
            await self._done.wait()
        finally:
            self.under_way -= 1


async def jobs(home: House) -> None:
    """Registers it as jobs, and its skills under their own names at /mcp/virtual/kit."""
    listener = loopback()
    url = await home.stack.enter_async_context(serving(application(listener.getsockname()[1]), listener))
    headers = {"authorization": f"Bearer {home.token('admin')}"}
    made = await home.http.post("/api/agents", json={"url": url, "name": "jobs"}, headers=headers)
    assert made.status_code == 201, made.text
    selection = {"name": "kit", "tools": ["jobs"], "aliases": {name: f"jobs/{name}" for name in JOBS}}
    made = await home.http.post("/api/virtual-servers", json=selection, headers=headers)
    assert made.status_code == 201, made.text
    await home.gateway.database.refresh_epochs()


async def ask(home: House, method: str, params: dict[str, Any], user: str = "admin", capabilities: Any = None, path: str = PLACE) -> Any:
    """The JSON of an answer of 2026-07-28."""
    body, headers = modern(method, params, TAKES if capabilities is None else capabilities)
    named = {"mcp-name": params["taskId"]} if "taskId" in params else {}
    return (await post(home, user, body, headers | named, path)).json()


async def begun(home: House, tool: str, user: str = "admin", path: str = PLACE, **arguments: Any) -> dict[str, Any]:
    """The CreateTaskResult of a call that becomes a task."""
    answer = await ask(home, "tools/call", {"name": tool, "arguments": arguments}, user, path=path)
    result: dict[str, Any] = answer["result"]
    assert result["resultType"] == "task", answer
    return result


async def seen(home: House, task_id: str, *states: str, user: str = "admin", path: str = PLACE) -> dict[str, Any]:
    """The task once it is in one of these states."""
    async with asyncio.timeout(SECONDS):
        while True:
            result: dict[str, Any] = (await ask(home, "tasks/get", {"taskId": task_id}, user, path=path))["result"]
            if result["status"] in states:
                return result
            await asyncio.sleep(0.05)  # between two looks


async def older(home: House, session: str, method: str, params: dict[str, Any], user: str = "admin", path: str = PLACE) -> Any:
    """The JSON of an answer of 2025-11-25."""
    return (await post(home, user, document(method, params), {"mcp-session-id": session}, path)).json()
