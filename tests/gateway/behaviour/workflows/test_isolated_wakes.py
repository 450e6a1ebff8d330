"""Wakes: what goes wrong with one run or one schedule keeps no other from going on, and is tried again less and less often."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.calls.resumption.takeover import FAILED, RESUMED
from gateway.workflows.engine.waking import FIRST_US, PAUSE_MAX_US, FailurePauses, RunWaker
from tests.fakes.house import House, house
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows, document

PAUSE = "do:\n- pause: {wait: PT1H}\n- done: {set: {x: 1}}\n"
ASK = "do:\n- ask: {call: gateway.choose, with: {prompt: 'Which?', options: [a, b]}}\n"


class Stubborn:
    """A takeover that can't resume some runs."""

    def __init__(self, *broken: str) -> None:
        self.broken = broken
        self.tried: list[str] = []

    async def resume(self, row: Any, ending: Any) -> str:
        self.tried.append(row.id)
        return FAILED if row.id in self.broken else RESUMED


@pytest.fixture
async def workflows(home: House) -> Workflows:
    """Nothing runs by itself: the test looks for what is due."""
    await home.gateway.periodic_tasks.stop()
    return Workflows(home)


@pytest.fixture
async def scheduled(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    services = {"nightly": {"roles": ["member"], "ceiling": ["agent:*"]}}
    async with house(tmp_path / "home", database_url, service_principals=services) as built:
        await built.gateway.periodic_tasks.stop()
        yield built


async def waiting(workflows: Workflows, count: int) -> list[str]:
    """Runs whose moment comes in an hour."""
    await workflows.add("pause", PAUSE)
    runs = [await workflows.start("pause") for _ in range(count)]
    for run in runs:
        owner = (await workflows.reached(run, "SUSPENDED"))["owner"]
        await until(partial(has_no_runner, workflows.home, owner, run))
    return runs


async def has_no_runner(home: House, owner: str, run: str) -> bool:
    return not (await home.gateway.stores.tasks.find("default", owner, run)).runner


def set_clock(home: House, ahead: int) -> None:
    """Moves the engine's clock by some microseconds."""
    store = home.gateway.workflows._parts.store
    before = store.now
    store.now = lambda: before() + ahead


async def test_a_run_that_cannot_be_resumed_is_left_alone_longer_and_longer(home: House, workflows: Workflows) -> None:
    broken, fine = await waiting(workflows, 2)
    takeover = Stubborn(broken)
    parts, registry = home.gateway.workflows._parts, home.gateway.registry
    waker = RunWaker(parts.store, parts.places, takeover, registry)  # type: ignore[arg-type]  # the part of it that is used
    set_clock(home, 3_601_000_000)
    assert await waker.run_once() == 1 and sorted(takeover.tried) == sorted([broken, fine])
    takeover.tried.clear()
    assert await waker.run_once() == 1 and takeover.tried == [fine]
    set_clock(home, FIRST_US + 1)
    takeover.tried.clear()
    await waker.run_once()
    assert broken in takeover.tried
    set_clock(home, FIRST_US + 1)
    takeover.tried.clear()
    await waker.run_once()
    assert takeover.tried == [fine]


def test_a_pause_after_failures_is_bounded_and_ends_with_a_success() -> None:
    now = 0
    backoff = FailurePauses(lambda: now)
    assert [backoff.record_failure("a") for _ in range(4)] == [1, 2, 4, 8]
    assert [backoff.record_failure("a") for _ in range(60)][-1] == PAUSE_MAX_US / 1_000_000
    assert backoff.waiting() == ["a"]
    backoff.record_success("a")
    assert not backoff.is_waiting("a") and backoff.record_failure("a") == 1


async def test_an_answer_resumes_its_own_run_alone(home: House, workflows: Workflows) -> None:
    (other,) = await waiting(workflows, 1)
    await workflows.add("asks", ASK)
    run = await workflows.start("asks")
    await workflows.reached(run, "INPUT_REQUIRED")
    (checkpoint,) = await workflows.checkpoints("alice")
    set_clock(home, 3_601_000_000)
    assert (await workflows.answer(checkpoint["id"], "a", "alice")).status_code == 200
    await workflows.output(run)
    assert "waits until 20" in (await workflows.show(other))["note"]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE workflow_schedules SET terms = replace(terms, '\"every\":60000', '\"cron\":\"never\"') WHERE workflow = 'first'",
        "UPDATE workflow_schedules SET terms = 'no terms' WHERE workflow = 'first'",
        "INSERT INTO workflow_starts (tenant, workflow, id, created, event, requesters, wanted) "
        "VALUES ('default', 'first', 'event:1', 1, 'no event', '[]', 0)",
    ],
    ids=["cron", "terms", "event"],
)
async def test_a_broken_schedule_stops_neither_other_schedules_nor_runs(scheduled: House, damage: str) -> None:
    home, workflows = scheduled, Workflows(scheduled)
    (run,) = await waiting(workflows, 1)
    for name in ("first", "second"):
        await add_scheduled(workflows, name)
    await home.gateway.database.write(lambda batch: batch.run(damage, ()))
    await workflows.pass_time(3601)
    await workflows.output(run)
    schedules = home.gateway.workflows._starter._schedules

    async def has_started() -> bool:
        await home.gateway.workflows.wake_once()
        second = await schedules.find("default", "second")
        return second is not None and bool(second.last_run)

    await until(has_started)


async def add_scheduled(workflows: Workflows, name: str) -> None:
    text = document(name, "schedule: {every: PT1M}\n" + "do:\n- done: {set: {x: 1}}\n")
    text = text.replace("summary: A workflow of the tests", "summary: A workflow of the tests, metadata: {gateway: {runAs: nightly}}")
    answer = await workflows.desk.post("/api/workflows", document=text)
    assert answer.status_code == 201, answer.text
    await workflows.home.gateway.database.refresh_epochs()
