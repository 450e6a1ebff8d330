"""A step for whose call the limits have no place waits for one without a process; a spent budget is an error of the step."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.waiting import until
from tests.fakes.workflows import Gate, Workflows

ASK = """
do:
- ask:
    call: gateway.agent
    with: {agent: sales, input: hi}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""


@asynccontextmanager
async def limited(tmp_path: Path, database_url: str, limit: dict[str, Any]) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, limits={"per": [{"what": "agent:sales", **limit}]}) as home:
        yield home


async def test_a_step_without_a_place_waits_for_one(tmp_path: Path, database_url: str) -> None:
    async with limited(tmp_path, database_url, {"concurrent": 1}) as home:
        gate, workflows = Gate(), Workflows(home)
        await home.agent(CallbackAgent("sales", gate.act))
        await workflows.add("flow", ASK)
        first = await workflows.start("flow")
        await gate.reached.wait()
        second = await workflows.start("flow", user="bob")
        shown = await workflows.reached(second, "SUSPENDED", user="bob")
        assert shown["note"].startswith("/do/0/ask: waits for a place: ") and shown["steps"] == []
        gate.opened.set()
        assert await workflows.output(first) == "done: hi"

        async def has_ended() -> bool:
            await home.gateway.workflows.wake_once()
            return (await workflows.show(second, "bob"))["state"] == "TASK_STATE_COMPLETED"

        await until(has_ended)
        assert gate.calls == ["hi", "hi"]


async def test_a_spent_budget_fails_a_step_at_once(tmp_path: Path, database_url: str) -> None:
    async with limited(tmp_path, database_url, {"calls_per_day": 1}) as home:
        workflows = Workflows(home)
        await home.agent(CallbackAgent("sales"))
        await workflows.add("flow", ASK)
        await workflows.ended(await workflows.start("flow"))
        shown = await workflows.ended(await workflows.start("flow"))
        assert shown["state"] == "TASK_STATE_FAILED"
        assert (shown["fault"]["status"], shown["fault"]["instance"]) == (429, "/do/0/ask")
