"""A document limits how many of its runs are at work at once: one more waits for its turn, whoever starts it. A wait takes no place."""

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.calls.resumption.takeover import FAILED
from gateway.workflows.runs.tables import workflow_runs
from tests.fakes.house import CallbackAgent, House, two
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

HEAD = """
document: {dsl: 1.0.3, namespace: tests, name: flow, version: 1.0.0, metadata: {gateway: {deadline: P2D, concurrency: {runs: %d}}}}
"""
AI = "metadata: {gateway: {kind: ai}}, input: {schema: {document: {}}}, output: {schema: {document: {}}}"
WORK = f"{{call: gateway.agent, with: {{agent: slow, input: '${{ $workflow.input }}'}}, {AI}}}"
ASK = "{call: gateway.choose, with: {prompt: 'Which?', options: [a, b]}}"
WORKS = f"do:\n- work: {WORK}\n"
ASKS = f"do:\n- ask: {ASK}\n- work: {WORK}\n"
HEARS = f"""
do:
- both:
    fork:
      branches:
      - hear: {{listen: {{to: {{one: {{with: {{type: test.done}}}}}}}}}}
      - asked: {{do: [{{ask: {ASK}}}, {{work: {WORK}}}]}}
"""
UNDOES = f"""
use: {{functions: {{undo: {{call: gateway.agent, with: {{agent: slow, input: undo}}, {AI}}}}}}}
do:
- first: {{set: first, metadata: {{gateway: {{compensate: undo}}}}}}
- choice: {{switch: [{{one: {{when: '$workflow.input == "late"', then: ask}}}}, {{other: {{then: work}}}}]}}
- ask: {ASK}
- work: {WORK}
"""
APPROVE = "do:\n- look: {call: gateway.approve, with: {prompt: 'Go on?'}}\n"
CALLS = f"do:\n- below: {{run: {{workflow: {{namespace: tests, name: below}}}}}}\n- work: {WORK}\n"
TURN = "waits for its turn"


class Works:
    """An agent that works on each input until the test lets it end."""

    def __init__(self) -> None:
        self.ends: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.working: set[str] = set()
        self.begun: list[str] = []
        self.most = 0

    async def act(self, _token: str, text: str) -> str:
        self.begun.append(text)
        self.working.add(text)
        self.most = max(self.most, len(self.working))
        await self.ends[text].wait()
        self.working.remove(text)
        return "done"


@pytest.fixture
async def works(home: House) -> Works:
    found = Works()
    await home.agent(CallbackAgent("slow", found.act))
    return found


async def published(home: House, body: str, runs_max: int = 1) -> Workflows:
    workflows = Workflows(home)
    answer = await workflows.desk.post("/api/workflows", document=HEAD % runs_max + body)
    assert answer.status_code == 201, answer.text
    await home.gateway.database.refresh_epochs()
    return workflows


async def begun(workflows: Workflows, works: Works, *inputs: str) -> list[str]:
    """Runs, each once it works on its input or waits. An input begins with the name of who starts the run, if it is not alice."""
    found = []
    for given in inputs:
        user = next((each for each in ("bob", "admin") if given.startswith(each)), "alice")
        found.append(run := await workflows.start("flow", given, user))

        async def rests(run: str = run, given: str = given) -> bool:
            shown = await workflows.show(run, "admin")
            return given in works.begun or bool(shown["note"]) or shown["state"].endswith("INPUT_REQUIRED")

        await until(rests)
    return found


async def until_woken(workflows: Workflows, works: Works, given: str) -> None:
    async def is_begun() -> bool:
        await workflows.home.gateway.workflows.wake_once()
        return given in works.begun

    await until(is_begun)


async def woken_to_end(workflows: Workflows, run: str) -> Any:
    async def has_ended() -> bool:
        await workflows.home.gateway.workflows.wake_once()
        return (await workflows.show(run))["state"] == "TASK_STATE_COMPLETED"

    await until(has_ended)
    return await workflows.output(run)


async def note_of(workflows: Workflows, run: str) -> str:
    return str((await workflows.show(run, "admin"))["note"])


async def until_queued(workflows: Workflows, run: str) -> None:
    async def is_queued() -> bool:
        return (await note_of(workflows, run)).startswith(TURN)

    await until(is_queued)


async def act(workflows: Workflows, run: str, verb: str, user: str = "alice") -> None:
    answer = await workflows.desk.ask("POST", f"/api/runs/{run}/{verb}", user)
    assert answer.is_success, answer.text


async def chosen(workflows: Workflows, run: str, user: str = "alice") -> None:
    checkpoint = (await workflows.show(run, user))["checkpoints"][0]
    answer = await workflows.answer(checkpoint["id"], "a", user)
    assert answer.status_code == 200, answer.text


async def test_the_run_that_waits_longest_is_the_next(home: House, works: Works) -> None:
    workflows = await published(home, WORKS, 2)
    _, _, third, fourth = await begun(workflows, works, "one", "bob two", "three", "bob four")
    assert [await note_of(workflows, run) for run in (third, fourth)] == [
        f"waits for its turn: the workflow has 2 runs at work, and {count} wait before this one" for count in (0, 1)
    ]
    works.ends["one"].set()
    await until_woken(workflows, works, "three")
    await until_queued(workflows, fourth)
    assert works.begun == ["one", "bob two", "three"]


async def test_a_paused_run_lets_the_others_pass(home: House, works: Works) -> None:
    workflows = await published(home, WORKS)
    _, second, _ = await begun(workflows, works, "one", "two", "three")
    await act(workflows, second, "pause")
    works.ends["one"].set()
    await until_woken(workflows, works, "three")
    await act(workflows, second, "resume")
    await until_queued(workflows, second)
    works.ends["three"].set()
    await until_woken(workflows, works, "two")


async def test_a_run_that_waits_for_people_gives_its_place_back(home: House, works: Works) -> None:
    """One person's forms hold up nobody. Answered runs go on one after the other, the first answered first."""
    workflows = await published(home, ASKS)
    first, second, third = await begun(workflows, works, "one", "two", "bob three")
    await chosen(workflows, third, "bob")
    await until_woken(workflows, works, "bob three")
    await chosen(workflows, second)
    await until_queued(workflows, second)
    await chosen(workflows, first)
    await until_queued(workflows, first)
    for given in ("bob three", "two"):
        works.ends[given].set()
    works.ends["one"].set()
    await until_woken(workflows, works, "one")
    assert (works.begun, works.most) == (["bob three", "two", "one"], 1)
    for run in (first, second):
        assert await workflows.output(run) == "done"


async def test_a_reply_of_the_owner_waits_for_a_place_too(home: House, works: Works) -> None:
    workflows = await published(home, ASKS)
    first, second = await begun(workflows, works, "one", "two")
    await chosen(workflows, first)
    await until_woken(workflows, works, "one")
    reply = asyncio.ensure_future(home.send(home.token("alice"), "flow", "b", taskId=second, messageId="m2"))
    await until_queued(workflows, second)
    assert works.begun == ["one"]
    works.ends["two"].set()
    works.ends["one"].set()
    await until_woken(workflows, works, "two")
    assert (await reply)["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"


async def test_a_run_in_the_queue_still_hears_its_events(home: House, works: Works) -> None:
    workflows = await published(home, HEARS)
    first, second = await begun(workflows, works, "admin one", "admin two")
    await chosen(workflows, first, "admin")
    await until_woken(workflows, works, "admin one")
    await chosen(workflows, second, "admin")
    await until_queued(workflows, second)
    event = {"specversion": "1.0", "id": "e1", "source": "https://shop.example", "type": "test.done"}
    assert (await workflows.desk.ask("POST", "/api/events", "admin", event)).status_code == 202
    assert await home.gateway.workflows._parts.store.due() == []
    works.ends["admin two"].set()
    works.ends["admin one"].set()
    await until_woken(workflows, works, "admin two")
    assert len(await workflows.output(second, "admin")) == 2


async def test_the_deadline_ends_a_run_that_waits_for_its_turn(home: House, works: Works) -> None:
    workflows = await published(home, WORKS)
    *_, second = await begun(workflows, works, "one", "two")
    await workflows.pass_time(2 * 86_400 + 1)
    shown = await workflows.ended(second)
    assert shown["state"] == "TASK_STATE_FAILED" and shown["steps"] == []


async def test_a_run_that_is_to_be_undone_is_the_next(home: House, works: Works) -> None:
    workflows = await published(home, UNDOES)
    (late,) = await begun(workflows, works, "late")
    await workflows.pass_time(86_400)
    await begun(workflows, works, "one", "two")
    await workflows.pass_time(86_401)
    await until_queued(workflows, late)
    assert await home.gateway.workflows._parts.store.due() == []
    works.ends["one"].set()
    await until_woken(workflows, works, "undo")
    works.ends["undo"].set()
    shown = await workflows.ended(late)
    assert "Deadline Passed" in shown["fault"]["title"] and (works.begun[:2], works.most) == (["one", "undo"], 1)


async def test_a_run_whose_sub_run_waits_gives_its_place_back(home: House, works: Works) -> None:
    await Workflows(home).add("below", APPROVE)
    workflows = await published(home, CALLS)
    first, second = await begun(workflows, works, "one", "two")
    note = f"/do/0/below: workflow below waits: /do/0/look: Go on? (checkpoint {(await workflows.checkpoints('admin'))[1]['id']})"
    assert await note_of(workflows, second) == note
    for checkpoint in await workflows.checkpoints("admin"):
        assert (await workflows.answer(checkpoint["id"], {"approved": True}, "admin")).status_code == 200
    works.ends["one"].set()
    works.ends["two"].set()
    for run in (first, second):
        assert await woken_to_end(workflows, run) == "done"
    assert works.most == 1


async def test_a_run_without_a_place_is_left_alone(home: House, works: Works) -> None:
    """A version that allowed more runs, and whose run was canceled in the queue, has no run of the next version looked at in vain."""
    await home.gateway.periodic_tasks.stop()
    workflows = await published(home, WORKS, 2)
    for run in reversed(await begun(workflows, works, "one", "two", "three")):
        await act(workflows, run, "cancel")
    await published(home, WORKS, 1)
    first, _ = await begun(workflows, works, "four", "five")
    assert await home.gateway.workflows._parts.places.next_runs() == []
    await act(workflows, first, "cancel")
    await until_woken(workflows, works, "five")


class Stubborn:
    """A takeover that can't resume one run."""

    def __init__(self, inner: Any, broken: str) -> None:
        self.inner = inner
        self.broken = broken

    async def resume(self, row: Any, ending: Any) -> str:
        return FAILED if row.id == self.broken else str(await self.inner.resume(row, ending))


async def test_a_run_that_can_not_go_on_lets_the_others_pass(home: House, works: Works) -> None:
    workflows = await published(home, WORKS)
    _, second, _ = await begun(workflows, works, "one", "two", "three")
    waker = home.gateway.workflows._waker
    waker._takeover = Stubborn(waker._takeover, second)
    works.ends["one"].set()
    await until_woken(workflows, works, "three")
    waker._takeover = waker._takeover.inner
    works.ends["three"].set()
    await workflows.pass_time(301)
    await until_woken(workflows, works, "two")


async def test_two_processes_share_the_places(tmp_path: Path, postgres_url: str) -> None:
    async with two(tmp_path / "home", postgres_url) as (one, other):
        works = Works()
        await one.agent(CallbackAgent("slow", works.act))
        workflows = await published(one, WORKS, 2)
        await other.gateway.database.refresh_epochs()
        both = [workflows, Workflows(other)]
        runs = await asyncio.gather(*(both[number % 2].start("flow", f"{number}") for number in range(8)))

        async def are_at_rest() -> bool:
            notes = [await note_of(workflows, run) for run in runs]
            return len([note for note in notes if note.startswith(TURN)]) == 6 and len(works.begun) == 2

        await until(are_at_rest)
        for home in (one, other, one):
            await home.gateway.workflows.wake_once()
        query = select(workflow_runs.c.admitted_at)
        found = await one.gateway.database.read(lambda connection: connection.execute(query).scalars().all())
        assert [moment is not None for moment in found].count(True) == 2 and len(found) == 8
        assert works.most == 2
