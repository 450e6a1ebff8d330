"""A run outlives its process: another one, or the same one after a restart, goes on from the journal, and nothing is done twice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.storage.database import Database
from gateway.tasks import log as task_log
from gateway.workflows.runs.journal import CALL, Journal, Result, StepRow
from gateway.workflows.runs.store import RunKey, RunStore, RunTaken
from policies.ids import now_us
from tests.fakes.a2a_agents import serving
from tests.fakes.house import CallbackAgent, House, house, two
from tests.fakes.outages import Shaky
from tests.fakes.waiting import until
from tests.fakes.workflows import Gate, Workflows

STEPS = """
do:
- first:
    call: gateway.agent
    with: {agent: sales, input: one}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
- second:
    try:
    - ask:
        call: gateway.agent
        with: {agent: slow, input: '${ . }'}
        metadata: {gateway: {kind: ai@}}
        input: {schema: {document: {}}}
        output: {schema: {document: {}}}
    catch: {retry: {limit: {attempt: {count: 2}}}}
"""
TOOL = """
do:
- take:
    call: gateway.tool
    with: {tool: inventory.reserve, arguments: {sku: one}}
- ask:
    call: gateway.agent
    with: {agent: slow, input: '${ . }'}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""
CHOOSE = """
do:
- which: {call: gateway.choose, with: {prompt: 'Which size?', options: [small, large]}}
- result: {set: {size: '${ . }'}}
"""
PAUSE = STEPS.replace("- second:", "- pause: {wait: PT1H}\n- second:").replace("@", "")


@pytest.fixture
async def pair(tmp_path: Path, postgres_url: str) -> AsyncIterator[tuple[House, House]]:
    async with two(tmp_path / "home", postgres_url) as both:
        yield both


async def crashed(one: House) -> None:
    """The process is gone for the others, and does nothing any more."""
    one.gateway.calls.turn_runner.hand_over()
    await one.gateway.periodic_tasks.stop()
    await one.gateway.database.write(lambda batch: batch.run("DELETE FROM processes WHERE id = ?", (one.gateway.process,)))


async def taken_over(other: House, run: str) -> dict[str, Any]:
    """The run once it has ended in the other process."""
    workflows = Workflows(other)

    async def has_ended() -> bool:
        await other.gateway.takeover.run_once()
        return str((await workflows.show(run))["state"]) in ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED")

    await until(has_ended)
    return await workflows.show(run)


@pytest.mark.parametrize(("declared", "state", "count"), [("", "FAILED", 1), (", idempotent: true", "COMPLETED", 2)])
async def test_a_step_of_unknown_outcome_is_repeated_only_where_declared(
    pair: tuple[House, House], declared: str, state: str, count: int
) -> None:
    one, other = pair
    gate = Gate()
    sales = await one.agent(CallbackAgent("sales"))
    await one.agent(CallbackAgent("slow", gate.act))
    workflows = Workflows(one)
    await workflows.add("steps", STEPS.replace("@", declared))
    await other.gateway.database.refresh_epochs()
    run = await workflows.start("steps")
    await gate.reached.wait()
    await crashed(one)
    gate.opened.set()
    shown = await taken_over(other, run)
    assert shown["state"] == f"TASK_STATE_{state}"
    assert (len(sales.requests), len(gate.calls)) == (1, count)
    if state == "FAILED":
        assert shown["steps"][-1]["fault"]["type"] == "urn:interlock:error:outcome-unknown"


async def test_a_tool_whose_result_was_not_journaled_is_not_called_again(pair: tuple[House, House]) -> None:
    one, other = pair
    gate = Gate()
    calls = await one.server("inventory", "reserve")
    await one.agent(CallbackAgent("slow", gate.act))
    await Workflows(one).add("tool", TOOL)
    await other.gateway.database.refresh_epochs()
    run = await Workflows(one).start("tool")
    await gate.reached.wait()
    await crashed(one)
    await one.gateway.database.write(lambda batch: batch.run("DELETE FROM workflow_steps WHERE step = ?", ("/do/0/take",)))
    gate.opened.set()
    shown = await taken_over(other, run)
    assert [step["step"] for step in shown["steps"]] == ["/do/0/take", "/do/1/ask"]
    assert "fault" not in shown["steps"][0]
    assert len(calls.calls) == 1


async def test_a_suspended_run_goes_on_in_any_process(pair: tuple[House, House]) -> None:
    one, other = pair
    await one.agent(CallbackAgent("sales"))
    await one.agent(CallbackAgent("slow"))
    await Workflows(one).add("pause", PAUSE)
    await other.gateway.database.refresh_epochs()
    run = await Workflows(one).start("pause")
    await Workflows(one).reached(run, "SUSPENDED")
    await crashed(one)
    await Workflows(other).pass_time(3601)
    assert await Workflows(other).output(run) == "slow got: sales got: one"


async def test_two_processes_wake_a_run_once(pair: tuple[House, House]) -> None:
    one, other = pair
    slow = CallbackAgent("slow")
    await one.agent(CallbackAgent("sales"))
    await one.agent(slow)
    await Workflows(one).add("pause", PAUSE)
    await other.gateway.database.refresh_epochs()
    run = await Workflows(one).start("pause")
    await Workflows(one).reached(run, "SUSPENDED")
    await Workflows(one).pass_time(3601)
    await Workflows(other).pass_time(3601)
    await Workflows(one).output(run)
    assert len(slow.requests) == 1


async def test_a_process_that_lost_a_run_writes_nothing_of_it(home: House) -> None:
    workflows = Workflows(home)
    gate = Gate()
    await home.agent(CallbackAgent("sales", gate.act))
    await home.agent(CallbackAgent("slow"))
    await workflows.add("steps", STEPS.replace("@", ""))
    run = await workflows.start("steps")
    await gate.reached.wait()
    stranger = RunStore(home.gateway.database, now_us, "p_stranger")
    journal = Journal(stranger, RunKey("default", run), {})
    with pytest.raises(RunTaken):
        await journal.add(StepRow("/do/0/first:0:", CALL, "", 1, 2, Result(value="forged")))
    gate.opened.set()
    assert await workflows.output(run) == "slow got: done: one"


async def test_a_run_goes_on_after_a_restart(tmp_path: Path, database_url: str) -> None:
    sales, slow = CallbackAgent("sales"), CallbackAgent("slow")
    async with serving(sales) as first, serving(slow) as second:
        async with house(tmp_path / "home", database_url) as before:
            await before.registered("sales", first)
            await before.registered("slow", second)
            await Workflows(before).add("pause", PAUSE)
            run = await Workflows(before).start("pause")
            await Workflows(before).reached(run, "SUSPENDED")
        async with house(tmp_path / "home", database_url) as after:
            await Workflows(after).pass_time(3601)
            assert await Workflows(after).output(run) == "slow got: sales got: one"
    assert (len(sales.requests), len(slow.requests)) == (1, 1)


async def test_an_answer_that_was_stored_and_not_delivered_reaches_its_checkpoint(pair: tuple[House, House]) -> None:
    one, other = pair
    await Workflows(one).add("choose", CHOOSE)
    await other.gateway.database.refresh_epochs()
    task = await Workflows(one).run("choose")
    store = one.gateway.workflows._parts.store
    store.database = held = Held(store.database)
    reply = asyncio.ensure_future(one.send(one.token("alice"), "choose", "large", taskId=task["id"], messageId="m2"))
    await held.reached.wait()
    await crashed(one)
    await reply
    assert (await taken_over(other, task["id"]))["state"] == "TASK_STATE_COMPLETED"
    assert await Workflows(other).output(task["id"]) == {"size": "large"}


async def test_a_reply_of_the_owner_reaches_a_run_that_an_agent_began(pair: tuple[House, House]) -> None:
    """The run has the chain of the agent, and the reply comes from the person."""
    one, other = pair
    begun: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    gate = Gate()

    async def begin(token: str, text: str) -> str:
        hop = await one.exchanged("chief", token, "/agents/choose", "agent:choose")
        begun.set_result((await one.send(hop, "choose", "{}"))["result"]["task"]["id"])
        return await gate.act(token, text)

    await one.agent(CallbackAgent("chief", begin))
    await Workflows(one).add("choose", CHOOSE)
    await other.gateway.database.refresh_epochs()
    chief = asyncio.ensure_future(one.send(one.token("alice"), "chief", "go"))
    run = await begun
    store = one.gateway.workflows._parts.store
    store.database = held = Held(store.database)
    reply = asyncio.ensure_future(one.send(one.token("alice"), "choose", "large", taskId=run, messageId="m2"))
    await held.reached.wait()
    await crashed(one)
    await reply
    assert (await taken_over(other, run))["state"] == "TASK_STATE_COMPLETED"
    gate.opened.set()
    await chief


async def test_an_answer_reaches_the_agent_that_asked_once(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_log, "RECENTLY_MOVED_US", 0)
    workflows, agent = Workflows(home), await home.agent(CallbackAgent("sales"))
    agent.state = "TASK_STATE_INPUT_REQUIRED"  # it asks again after each answer
    await workflows.add("asks", STEPS.replace("agent: slow", "agent: sales").replace("@", ""))
    run = (await workflows.run("asks"))["id"]
    store = home.gateway.workflows._parts.store
    store.database = shaky = Shaky(store.database)
    shaky.writes = ["refused"]
    refused = await home.send(home.token("alice"), "asks", "blue", taskId=run, messageId="m2")
    assert "error" in refused and not shaky.writes

    async def asks_again() -> bool:
        await home.gateway.takeover.run_once()
        return (await workflows.show(run))["state"] == "TASK_STATE_INPUT_REQUIRED"

    await until(asks_again)
    assert [request["params"]["message"]["parts"][0]["text"] for request in agent.requests] == ["one", "blue"]


class Held:
    """A database of which nothing is read: whoever asks waits."""

    def __init__(self, database: Database) -> None:
        self.reached = asyncio.Event()
        self._database = database

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def read(self, work: Any) -> Any:
        self.reached.set()
        await asyncio.Event().wait()
