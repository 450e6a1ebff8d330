"""A document limits how many of its runs are at once: one more waits for its turn, whoever starts it."""

import asyncio
from pathlib import Path

from sqlalchemy import select

from gateway.workflows.runs.tables import workflow_runs
from tests.fakes.house import House, two
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

DOCUMENT = """
document:
  dsl: 1.0.3
  namespace: tests
  name: flow
  version: 1.0.0
  metadata: {gateway: {deadline: P2D, concurrency: {runs: 2}}}
do:
- pause: {wait: P7D}
"""
PAUSES = "/do/0/pause"
TURN = "waits for its turn"


async def added(home: House) -> Workflows:
    workflows = Workflows(home)
    answer = await workflows.desk.post("/api/workflows", document=DOCUMENT)
    assert answer.status_code == 201, answer.text
    await home.gateway.database.refresh_epochs()
    return workflows


async def started(workflows: Workflows, *users: str) -> list[str]:
    """Runs, each once it waits: in its pause, or for its turn."""
    return [await suspended(workflows, await workflows.start("flow", user=user), user) for user in users]


async def suspended(workflows: Workflows, run: str, user: str) -> str:
    await workflows.reached(run, "SUSPENDED", user=user)
    return run


async def notes(workflows: Workflows, *runs: str) -> list[str]:
    return [(await workflows.show(run, "admin"))["note"] for run in runs]


async def until_noted(workflows: Workflows, run: str, beginning: str) -> None:
    """Waits until the note of a run begins so; a run that is looked at again has none for a moment."""

    async def is_noted() -> bool:
        await workflows.home.gateway.workflows.wake_once()
        return (await notes(workflows, run))[0].startswith(beginning)

    await until(is_noted)


async def act(workflows: Workflows, run: str, verb: str, user: str = "alice") -> None:
    answer = await workflows.desk.ask("POST", f"/api/runs/{run}/{verb}", user)
    assert answer.is_success, answer.text


async def test_the_run_that_waits_longest_is_the_next(home: House) -> None:
    workflows = await added(home)
    first, _, third, fourth = await started(workflows, "alice", "bob", "alice", "bob")
    assert await notes(workflows, third, fourth) == [
        f"waits for its turn: the workflow has 2 runs at work, and {count} wait before this one" for count in (0, 1)
    ]
    await act(workflows, first, "cancel")
    await until_noted(workflows, third, PAUSES)
    await until_noted(workflows, fourth, TURN)


async def test_a_paused_run_lets_the_others_pass(home: House) -> None:
    workflows = await added(home)
    first, _, third, fourth = await started(workflows, "alice", "bob", "alice", "bob")
    await act(workflows, third, "pause")
    await act(workflows, first, "cancel")
    await until_noted(workflows, fourth, PAUSES)
    await act(workflows, third, "resume")
    await until_noted(workflows, third, TURN)


async def test_the_deadline_ends_a_run_that_waits_for_its_turn(home: House) -> None:
    workflows = await added(home)
    *_, third = await started(workflows, "alice", "alice", "alice")
    await workflows.pass_time(2 * 86_400 + 1)
    shown = await workflows.ended(third)
    assert shown["state"] == "TASK_STATE_FAILED" and shown["steps"] == []


async def test_a_run_without_a_place_is_left_alone(home: House) -> None:
    """A version that allowed more runs, and whose run was canceled in the queue, has no run of the next version looked at in vain."""
    await home.gateway.periodic_tasks.stop()
    workflows = await added(home)
    for run in reversed(await started(workflows, "alice", "alice", "alice")):
        await act(workflows, run, "cancel")
    answer = await workflows.desk.post("/api/workflows", document=DOCUMENT.replace("runs: 2", "runs: 1"))
    assert answer.status_code == 201, answer.text
    await home.gateway.database.refresh_epochs()
    first, second = await started(workflows, "alice", "alice")
    assert await home.gateway.workflows._parts.places.next_runs() == []
    await act(workflows, first, "cancel")
    await until_noted(workflows, second, PAUSES)


async def test_two_processes_share_the_places(tmp_path: Path, postgres_url: str) -> None:
    async with two(tmp_path / "home", postgres_url) as (one, other):
        workflows = await added(one)
        await other.gateway.database.refresh_epochs()
        both = [workflows, Workflows(other)]
        runs = await asyncio.gather(*(both[number % 2].start("flow") for number in range(8)))
        await asyncio.gather(*(workflows.reached(run, "SUSPENDED") for run in runs))
        for home in (one, other, one):
            await home.gateway.workflows.wake_once()
        found = await one.gateway.database.read(lambda connection: connection.execute(select(workflow_runs.c.admitted_at)).scalars().all())
        assert [moment is not None for moment in found].count(True) == 2 and len(found) == 8
