"""Replies of a run's owner to what runs below it ask, through the run itself: each is delivered once, after a crash too."""

import asyncio
from pathlib import Path
from typing import Any

from tests.fakes.house import CallbackAgent, House, two
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

ASKS = "do:\n- ask: {call: gateway.choose, with: {prompt: 'Which?', options: [small, large]}}\n"
LATER = "do:\n- pause: {wait: PT1H}\n" + ASKS.removeprefix("do:\n")
CALLS = "do:\n- below: {run: {workflow: {namespace: tests, name: %s}}}\n"


async def started(home: House) -> str:
    """A run two levels above one that asks its owner."""
    workflows = Workflows(home)
    await workflows.add("below", ASKS)
    await workflows.add("middle", CALLS % "below")
    await workflows.add("above", CALLS % "middle")
    return str((await workflows.run("above"))["id"])


async def replied(home: House, run: str, token: str = "") -> Any:
    return await home.send(token or home.token("alice"), "above", "large", taskId=run, messageId="m2")


async def answered(home: House) -> int:
    """How many answers of checkpoints the audit has."""
    return len((await Workflows(home).desk.ask("GET", "/api/audit?kind=checkpoint-answered", "admin")).json()["items"])


async def test_a_reply_reaches_the_checkpoint_of_a_run_below(home: House) -> None:
    run = await started(home)
    await replied(home, run)
    assert await Workflows(home).output(run) == "large"


async def test_a_run_asks_when_a_suspended_run_below_comes_to_its_question(home: House) -> None:
    """The runs above are suspended too, and hold no process."""
    workflows = Workflows(home)
    await workflows.add("below", LATER)
    await workflows.add("middle", CALLS % "below")
    await workflows.add("above", CALLS % "middle")
    run = await workflows.start("above")
    note = (await workflows.reached(run, "SUSPENDED"))["note"]
    assert note.startswith("/do/0/below: workflow middle waits: /do/0/below: workflow below waits: /do/0/pause: waits until")
    assert not home.gateway.calls.turn_runner._background_turns
    await workflows.pass_time(3601)

    async def asks() -> bool:
        await home.gateway.workflows.wake_once()
        return (await workflows.show(run))["state"] == "TASK_STATE_INPUT_REQUIRED"

    await until(asks)
    await replied(home, run)
    assert await workflows.output(run) == "large"


async def test_an_agent_replies_to_no_checkpoint_of_a_run_below(home: House) -> None:
    runs: list[str] = []

    async def act(token: str, _text: str) -> str:
        hop = await home.exchanged("rogue", token, "/agents/above", "agent:above agent:middle agent:below")
        runs.append((await home.send(hop, "above", "{}"))["result"]["task"]["id"])
        await replied(home, runs[0], hop)
        return "done"

    run = await started(home)
    await Workflows(home).desk.ask("POST", f"/api/runs/{run}/cancel", "alice")
    await home.agent(CallbackAgent("rogue", act))
    await Workflows(home).run("rogue")
    assert runs and await answered(home) == 0


async def test_a_reply_to_a_run_below_is_delivered_after_a_crash(tmp_path: Path, postgres_url: str) -> None:
    async with two(tmp_path / "home", postgres_url) as (one, other):
        run = await started(one)
        await other.gateway.database.refresh_epochs()
        reached = asyncio.Event()

        async def never(*_: Any) -> Any:
            reached.set()
            await asyncio.Event().wait()

        one.gateway.workflows._parts.checkpoints.find = never  # type: ignore[method-assign]  # the answer is not delivered
        reply = asyncio.ensure_future(replied(one, run))
        await reached.wait()
        one.gateway.calls.turn_runner.hand_over()
        await one.gateway.periodic_tasks.stop()
        await one.gateway.database.write(lambda batch: batch.run("DELETE FROM processes WHERE id = ?", (one.gateway.process,)))

        async def has_ended() -> bool:
            await other.gateway.takeover.run_once()
            return (await Workflows(other).show(run))["state"] == "TASK_STATE_COMPLETED"

        await until(has_ended)
        reply.cancel()
        assert (await Workflows(other).output(run), await answered(other)) == ("large", 1)
