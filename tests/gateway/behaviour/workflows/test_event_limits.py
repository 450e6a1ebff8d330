"""Events under taken names, in great numbers and in circles are dealt with or refused with the reason, and none is dropped silently."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from gateway.workflows.cloud_events import delivery
from gateway.workflows.cloud_events.hops import HOPS_MAX
from gateway.workflows.cloud_events.matching import EventMatcher
from gateway.workflows.engine import event_steps
from gateway.workflows.runs.tables import workflow_listens, workflow_received, workflow_starts
from tests.fakes.house import House, house
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

ROLES = {
    "operator": ["*"],
    "member": ["agent:*"],
    "sender": ["agent:*", "state:write:events/*", "state:read:events/*"],
}
SERVICES = {"nightly": {"roles": ["sender"], "ceiling": ["agent:*", "state:*"]}}
LISTEN = """
do:
- paid:
    listen: {to: {one: {with: {type: test.paid, data: '${ .amount > 10 }'}}}, read: data}
- result: {set: {paid: '${ .[0].amount }'}}
"""
UNTIL = """
do:
- gather: {listen: {to: {any: [{with: {type: test.item}}], until: {all: [{with: {type: test.end}}, {with: {type: test.stop}}]}}}}
- count: {set: {count: '${ length }'}}
"""
NAMED = """
do:
- tell: {try: [{send: {emit: {event: {with: {type: test.paid, id: order-7, data: '${ .data }'}}}}}],
    catch: {as: why, do: [{caught: {set: {type: '${ $why.type }'}}}]}}
"""
STARTED = """
document: {dsl: 1.0.3, namespace: tests, name: %s, version: 1.0.0, metadata: {gateway: {runAs: nightly, concurrency: %s}}}
schedule: {on: {one: {with: %s}}}
do:
"""
PAUSE = "- pause: {wait: P1D}\n"
EMIT = "- tell: {emit: {event: {with: {type: %s, data: {}}}}}\n"


@pytest.fixture
async def workflows(tmp_path: Path, database_url: str) -> AsyncIterator[Workflows]:
    users = {name: {"roles": ["sender"]} for name in ("alice", "bob")}
    async with house(tmp_path / "home", database_url, service_principals=SERVICES, roles=ROLES, users=users) as home:
        yield Workflows(home)


def event(kind: str, number: int = 1, **data: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": f"e{number}", "source": "https://shop.example", "type": kind, "data": data}


async def send(workflows: Workflows, body: Any, user: str = "admin") -> Any:
    return await workflows.desk.ask("POST", "/api/events", user, body)


async def sent(workflows: Workflows, body: Any) -> None:
    answer = await send(workflows, body)
    assert (answer.status_code, answer.json().get("not_started")) == (202, []), answer.text


async def trigger_shows(workflows: Workflows, wanted: Callable[[dict[str, Any]], object]) -> None:
    """Waits until the only trigger is as it is wanted."""

    async def is_shown() -> bool:
        (trigger,) = (await workflows.desk.ask("GET", "/api/triggers", "admin")).json()["items"]
        return bool(wanted(trigger))

    await until(is_shown)


async def add_started(workflows: Workflows, name: str, wanted: str, body: str, concurrency: str = "{}") -> None:
    text = STARTED % (name, concurrency, wanted) + body
    answer = await workflows.desk.post("/api/workflows", document=text)
    assert answer.status_code == 201, answer.text
    await workflows.home.gateway.database.refresh_epochs()


async def listening(workflows: Workflows, body: str) -> str:
    await workflows.add("waits", body)
    run = await workflows.start("waits", user="admin")
    await workflows.reached(run, "SUSPENDED", user="admin")
    return run


async def count(home: House, table: Any) -> int:
    return int(await home.gateway.database.read(lambda connection: connection.execute(select(func.count()).select_from(table)).scalar()))


async def tasks_of(home: House) -> list[Any]:
    answer = await Workflows(home).desk.ask("GET", "/api/runs?limit=200", "admin")
    return list(answer.json()["items"])


@pytest.mark.parametrize("change", [{"type": "test.other"}, {"data": {"amount": 1}}, {"subject": "x"}, {}])
async def test_a_taken_name_of_an_event_is_a_conflict(workflows: Workflows, change: dict[str, Any]) -> None:
    await sent(workflows, event("test.paid"))
    again = event("test.paid") | {"time": "2026-01-31T12:00:00Z"}
    assert (await send(workflows, again)).json() == {"accepted": 1, "repeated": 1, "not_started": []}
    user = "admin" if change else "alice"
    answer = await send(workflows, [event("test.paid", 2), event("test.paid") | change], user)
    assert (answer.status_code, answer.json()["reason_id"]) == (409, "event-conflict"), answer.text
    assert (await send(workflows, event("test.paid", 2), user)).json() == {"accepted": 1, "repeated": 0, "not_started": []}


async def test_a_step_that_takes_a_name_of_another_event_fails(workflows: Workflows) -> None:
    await workflows.add("tells", NAMED)
    first = await workflows.start("tells", {"data": 1}, "admin")
    assert (await workflows.output(first, "admin"))["id"] == "order-7"
    again = await workflows.start("tells", {"data": 1}, "admin")
    assert (await workflows.output(again, "admin"))["id"] == "order-7"
    other = await workflows.start("tells", {"data": 2}, "admin")
    assert await workflows.output(other, "admin") == {"type": "urn:interlock:error:event-conflict"}


async def test_a_listening_run_survives_events_that_do_not_match(workflows: Workflows) -> None:
    run = await listening(workflows, LISTEN)
    for batch in range(11):
        await sent(workflows, [event("test.paid", batch * 100 + each, amount=1) for each in range(100)])

    async def has_looked() -> bool:
        return await count(workflows.home, workflow_received) == 0

    await until(has_looked)
    await sent(workflows, event("test.paid", 5000, amount=30))
    assert await workflows.output(run, "admin") == {"paid": 30}


async def test_an_event_is_looked_at_once(workflows: Workflows, monkeypatch: pytest.MonkeyPatch) -> None:
    run = await listening(workflows, LISTEN)
    looked, take = list[str](), EventMatcher.take

    async def note(matcher: EventMatcher, wanted: Any, progress: Any, given: Any, consumed: Any) -> Any:
        looked.append(given["id"])
        return await take(matcher, wanted, progress, given, consumed)

    monkeypatch.setattr(EventMatcher, "take", note)
    for number in range(3):
        await sent(workflows, event("test.paid", number, amount=1))
    await sent(workflows, event("test.paid", 3, amount=11))
    await workflows.output(run, "admin")
    assert looked == ["e0", "e1", "e2", "e3"]


async def test_what_ends_the_listening_may_be_several_events(workflows: Workflows) -> None:
    run = await listening(workflows, UNTIL)
    for number, kind in enumerate(["test.end", "test.item", "test.end", "test.item", "test.stop"]):
        await sent(workflows, event(kind, number))
    assert await workflows.output(run, "admin") == {"count": 2}


async def test_events_that_a_paused_run_could_not_be_given_are_told(workflows: Workflows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "BACKLOG_MAX", 2)
    run = await listening(workflows, LISTEN)
    await workflows.desk.ask("POST", f"/api/runs/{run}/pause", "admin")
    await sent(workflows, [event("test.paid", each, amount=1) for each in range(5)])
    await workflows.desk.ask("POST", f"/api/runs/{run}/resume", "admin")
    shown = await workflows.ended(run, "admin")
    assert shown["fault"]["type"] == "urn:interlock:error:events-lost" and "3 events" in shown["fault"]["detail"]
    assert await count(workflows.home, workflow_listens) == 0


async def test_too_many_matching_events_fail_the_step(workflows: Workflows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_steps, "CONSUMED_MAX", 3)
    run = await listening(workflows, UNTIL)
    await sent(workflows, [event("test.item", each) for each in range(3)])
    assert "3 events matched" in (await workflows.ended(run, "admin"))["fault"]["detail"]


async def test_events_that_start_nothing_take_no_place_of_starts(workflows: Workflows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "STARTS_MAX", 2)
    one_at_once = "{runs: 1, overlap: queue}"
    await add_started(workflows, "flow", "{type: test.order, data: '${ .amount > 10 }'}", PAUSE, one_at_once)
    for number in range(6):
        await sent(workflows, event("test.order", number, amount=1))
    await sent(workflows, event("test.order", 10, amount=20))
    await trigger_shows(workflows, lambda trigger: trigger["last_run"] and not trigger["waiting"])
    await sent(workflows, event("test.order", 11, amount=20))
    for number in range(20, 26):
        await sent(workflows, event("test.order", number, amount=1))

    async def are_sorted() -> bool:
        return await count(workflows.home, workflow_starts) == 1

    await until(are_sorted)


async def test_a_start_beyond_the_limit_is_dropped_and_its_event_delivered(workflows: Workflows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "STARTS_MAX", 1)
    await add_started(workflows, "flow", "{type: test.paid}", PAUSE, "{runs: 1, overlap: queue}")
    await workflows.add("tells", "do:\n" + EMIT % "test.paid")
    await sent(workflows, event("test.paid", 1, amount=1))
    await trigger_shows(workflows, lambda trigger: trigger["last_run"] and not trigger["waiting"])
    await sent(workflows, event("test.paid", 2, amount=1))
    await trigger_shows(workflows, lambda trigger: trigger["waiting"] == 1)
    listener = await listening(workflows, LISTEN)
    answer = (await send(workflows, event("test.paid", 3, amount=11))).json()
    dropped = {"workflow": "flow", "source": event("test.paid", 3)["source"], "id": "e3"}
    assert answer == {"accepted": 1, "repeated": 0, "not_started": [dropped]}
    await workflows.output(listener, "admin")
    await trigger_shows(
        workflows, lambda trigger: (trigger["problem"] or "").startswith("starts-full: the event e3 ") and trigger["waiting"] == 1
    )
    assert (await send(workflows, event("test.paid", 3, amount=11))).json() == {"accepted": 1, "repeated": 1, "not_started": []}
    run = await workflows.start("tells", user="admin")
    assert (await workflows.ended(run, "admin"))["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.parametrize("names", [("flow",), ("flow", "back")])
async def test_workflows_that_start_each_other_by_events_end(workflows: Workflows, names: tuple[str, ...]) -> None:
    for name, following in zip(names, (*names[1:], names[0]), strict=True):
        await add_started(workflows, name, f"{{type: test.{name}}}", EMIT % f"test.{following}")
    await sent(workflows, event("test.flow"))
    store = workflows.home.gateway.workflows._parts.store

    async def failures() -> list[str]:
        query = select(delivery.tasks.c.id).where(delivery.tasks.c.state == "TASK_STATE_FAILED")
        return list(await store.database.read(lambda connection: connection.execute(query).scalars().all()))

    async def has_failed() -> bool:
        await workflows.home.gateway.workflows.wake_once()
        return bool(await failures())

    await until(has_failed)
    await asyncio.gather(*(workflows.home.gateway.workflows.wake_once() for _ in range(2)))
    failed = await failures()
    assert len(failed) == 1 and await count(workflows.home, delivery.tasks) == HOPS_MAX + 1
    answer = await workflows.desk.ask("GET", f"/api/runs/{failed[0]}", "admin")
    assert answer.json()["fault"]["type"] == "urn:interlock:error:event-loop"


async def test_runs_that_a_started_run_leaves_behind_count_too(workflows: Workflows) -> None:
    await workflows.add("inner", "do:\n" + EMIT % "test.flow")
    run = "- sub: {run: {workflow: {namespace: tests, name: inner, version: latest}, await: false}}\n"
    await add_started(workflows, "flow", "{type: test.flow}", run)
    await sent(workflows, event("test.flow"))
    table = delivery.workflow_events.c

    async def has_three() -> bool:
        await workflows.home.gateway.workflows.wake_once()
        return await count(workflows.home, delivery.workflow_events) >= 3

    await until(has_three)
    texts = await workflows.home.gateway.database.read(lambda connection: connection.execute(select(table.event)).scalars().all())
    assert any('"interlockhops":2' in text for text in texts)


async def test_hops_are_set_by_the_gateway_alone(workflows: Workflows) -> None:
    answer = await send(workflows, event("test.flow") | {"interlockhops": 0})
    assert answer.status_code == 422 and "only the gateway sets" in answer.json()["detail"]
