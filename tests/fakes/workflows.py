"""Workflows in a whole gateway: documents are uploaded and runs are started through its doors."""

import asyncio
from typing import Any

from tests.fakes.house import House
from tests.fakes.reception import Reception
from tests.fakes.waiting import until

HEAD = """
document: {{dsl: 1.0.3, namespace: tests, name: {name}, version: 1.0.0, title: {name}, summary: A workflow of the tests}}
"""


def document(name: str, body: str) -> str:
    """A document with a head."""
    return HEAD.format(name=name) + body


class Workflows:
    """What people do with workflows: `alice` starts runs, `admin` uploads and approves."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.desk = Reception(home)

    async def add(self, name: str, body: str) -> dict[str, Any]:
        answer = await self.desk.post("/api/workflows", document=document(name, body))
        assert answer.status_code == 201, answer.text
        await self.home.gateway.database.refresh_epochs()
        return dict(answer.json())

    async def refused(self, name: str, body: str) -> list[dict[str, Any]]:
        answer = await self.desk.post("/api/workflows", document=document(name, body))
        assert answer.status_code == 422, answer.text
        return list(answer.json()["problems"])

    async def run(self, name: str, given: Any = None, user: str = "alice") -> dict[str, Any]:
        """The task of a run, sent over A2A as any client does, when it has ended or waits."""
        message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"data": {} if given is None else given}]}
        answer = await self.home.rpc(
            f"/agents/{name}", self.home.token(user), "SendMessage", {"message": message}, **{"A2A-Version": "1.0"}
        )
        return dict(answer.json()["result"]["task"])

    async def start(self, name: str, given: Any = None, user: str = "alice") -> str:
        answer = await self.desk.ask("POST", "/api/runs", user, {"workflow": name, "input": {} if given is None else given})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def show(self, run_id: str, user: str = "alice") -> dict[str, Any]:
        answer = await self.desk.ask("GET", f"/api/runs/{run_id}", user)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def reached(self, run_id: str, *states: str, user: str = "alice") -> dict[str, Any]:
        """The run once it is in one of the states, such as `COMPLETED`; `SUSPENDED` is WORKING with something to wait for."""

        async def is_there() -> bool:
            shown = await self.show(run_id, user)
            state = shown["state"].removeprefix("TASK_STATE_")
            return state in states or ("SUSPENDED" in states and state == "WORKING" and bool(shown["note"]))

        await until(is_there)
        return await self.show(run_id, user)

    async def ended(self, run_id: str, user: str = "alice") -> dict[str, Any]:
        return await self.reached(run_id, "COMPLETED", "FAILED", "CANCELED", "REJECTED", user=user)

    async def output(self, run_id: str, user: str = "alice") -> Any:
        """The output of a completed run."""
        shown = await self.ended(run_id, user)
        task = (await self.desk.ask("GET", f"/api/tasks/{run_id}", user)).json()
        assert shown["state"] == "TASK_STATE_COMPLETED", task
        return output_of(task)

    async def pass_time(self, seconds: float) -> None:
        """Moves the engine's clock forward, and has it look for runs that are due."""
        store = self.home.gateway.workflows._parts.store
        before = store.now
        store.now = lambda: before() + int(seconds * 1_000_000)
        await self.home.gateway.workflows.wake_once()

    async def checkpoints(self, user: str = "alice") -> list[dict[str, Any]]:
        return list((await self.desk.ask("GET", "/api/checkpoints", user)).json()["items"])

    async def answer(self, checkpoint_id: str, value: Any, user: str) -> Any:
        return await self.desk.ask("POST", f"/api/checkpoints/{checkpoint_id}/answer", user, {"value": value})


def output_of(task: dict[str, Any]) -> Any:
    """The data of the run's artifact."""
    return task["artifacts"][0]["parts"][0]["data"]


class Gate:
    """Holds up an agent until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.calls: list[str] = []

    async def act(self, _token: str, text: str) -> str:
        self.calls.append(text)
        self.reached.set()
        await self.opened.wait()
        return f"done: {text}"
