"""Runs that time and events start: each once, as the service principal that the document names and an operator has set up."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.storage.tables import tasks
from gateway.workflows.engine import scheduled_starts
from tests.fakes.house import CallbackAgent, House, house, two
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

SERVICES = {
    "nightly": {"roles": ["reader"], "ceiling": ["agent:*", "state:*", "tool:*"]},
    "narrow": {"roles": ["reader"], "ceiling": ["agent:flow"]},
}
ROLES = {
    "operator": ["*"],
    "member": ["agent:*", "tool:*"],
    "reader": ["agent:*", "state:read:events/*"],
    "uploader": ["agent:*", "registry:write", "workflow:run-as/narrow"],
}
USERS = {"alice": {"roles": ["member"]}, "ursula": {"roles": ["uploader"]}}
HEAD = "document: {{dsl: 1.0.3, namespace: tests, name: flow, version: 1.0.0, metadata: {{gateway: {{{extras}}}}}}}\n"
ASK = """
do:
- ask:
    call: gateway.agent
    with: {agent: sales, input: '${ tojson }'}
    metadata: {gateway: {kind: ai}}
    input: {schema: {document: {}}}
    output: {schema: {document: {}}}
"""
PAUSE = "do:\n- pause: {wait: P1D}\n"
ON = "schedule: {on: {one: {with: {type: test.order, data: '${ .amount > 10 }'}}}}\n"


@pytest.fixture
async def scheduled(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url, service_principals=SERVICES, roles=ROLES, users=USERS) as built:
        yield built


def flow(body: str, extras: str = "runAs: nightly") -> str:
    return HEAD.format(extras=extras) + body


async def uploaded(home: House, text: str, user: str = "admin") -> Any:
    return await Workflows(home).desk.ask("POST", "/api/workflows", user, {"document": text})


async def added(home: House, text: str) -> None:
    answer = await uploaded(home, text)
    assert answer.status_code == 201, answer.text
    await home.gateway.database.refresh_epochs()


async def sent(home: House, number: int, **data: Any) -> None:
    event = {"specversion": "1.0", "id": f"e{number}", "source": "https://shop.example", "type": "test.order", "data": data}
    answer = await Workflows(home).desk.ask("POST", "/api/events", "admin", event)
    assert answer.status_code == 202, answer.text


async def runs(home: House) -> list[Any]:
    query = select(tasks).where(tasks.c.agent == "flow").order_by(tasks.c.created)
    return list(await home.gateway.database.read(lambda connection: connection.execute(query).all()))


async def all_ended(home: House, count: int) -> list[Any]:
    async def are_over() -> bool:
        found = await runs(home)
        return len(found) == count and all(
            row.state in ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED") for row in found
        )

    await until(are_over)
    return await runs(home)


@pytest.mark.parametrize("schedule", ["every: PT1H", "cron: '0 * * * *'"])
async def test_time_starts_a_run_and_a_downtime_at_most_one(scheduled: House, schedule: str) -> None:
    sales = await scheduled.agent(CallbackAgent("sales"))
    await added(scheduled, flow(f"schedule: {{{schedule}}}\n{ASK}"))
    assert await runs(scheduled) == []
    shown = (await Workflows(scheduled).desk.ask("GET", "/api/workflows/flow")).json()["schedule"]
    assert (shown["run_as"], shown["last_run"], bool(shown["next_at"])) == ("nightly", None, True)
    await Workflows(scheduled).pass_time(3601)
    (row,) = await all_ended(scheduled, 1)
    assert (row.owner, row.state) == ("default|urn:interlock:service|nightly", "TASK_STATE_COMPLETED")
    await Workflows(scheduled).pass_time(5 * 3600)
    await Workflows(scheduled).pass_time(1)
    assert len(await all_ended(scheduled, 2)) == len(sales.requests) == 2


async def test_after_counts_from_the_end_of_the_run(scheduled: House) -> None:
    await added(scheduled, flow(f"schedule: {{after: PT1H}}\n{PAUSE}"))
    workflows = Workflows(scheduled)
    await workflows.pass_time(3601)
    await until_suspended(scheduled, 1)
    await workflows.pass_time(23 * 3600)
    assert len(await runs(scheduled)) == 1
    await workflows.pass_time(3700)
    await all_ended(scheduled, 1)
    await workflows.pass_time(1)
    await workflows.pass_time(3601 + 2 * 86_400)
    await until_suspended(scheduled, 2)


async def until_suspended(home: House, count: int) -> None:
    async def are_there() -> bool:
        return len(await runs(home)) == count and not any(row.runner for row in await runs(home))

    await until(are_there)


async def test_an_event_starts_one_run_with_its_data(scheduled: House) -> None:
    sales = await scheduled.agent(CallbackAgent("sales"))
    await added(scheduled, flow(ON + ASK))
    await sent(scheduled, 1, amount=5)
    await sent(scheduled, 2, amount=50)
    await sent(scheduled, 2, amount=50)
    await all_ended(scheduled, 1)
    assert [each["params"]["message"]["parts"][0]["text"] for each in sales.requests] == ['[{"amount":50}]']


@pytest.mark.parametrize(
    ("overlap", "states"), [("skip", ["WORKING"]), ("queue", ["WORKING"]), ("cancel-previous", ["CANCELED", "WORKING"])]
)
async def test_the_document_says_what_an_overlap_does(scheduled: House, overlap: str, states: list[str]) -> None:
    await added(scheduled, flow(f"schedule: {{every: PT1H}}\n{PAUSE}", f"runAs: nightly, concurrency: {{runs: 1, overlap: {overlap}}}"))
    workflows = Workflows(scheduled)
    await workflows.pass_time(3601)
    await until_suspended(scheduled, 1)
    await workflows.pass_time(3601)
    await until_suspended(scheduled, len(states))
    assert [row.state.removeprefix("TASK_STATE_") for row in await runs(scheduled)] == states
    if overlap == "queue":
        await workflows.pass_time(86_400)
        await all_or_more(workflows, scheduled, 2)


async def all_or_more(workflows: Workflows, home: House, count: int) -> None:
    async def are_there() -> bool:
        await workflows.pass_time(0)
        return len(await runs(home)) >= count

    await until(are_there)


async def test_a_slow_filter_holds_up_no_other_schedule(scheduled: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduled_starts, "SORT_SECONDS", 0.01)
    await scheduled.gateway.periodic_tasks.stop()
    endless = ON.replace(".amount > 10", "[range(1e12)] | length > 0")
    for name, schedule in (("a-slow", endless), ("flow", "schedule: {every: PT1M}\n")):
        await added(scheduled, flow(schedule + PAUSE).replace("name: flow", f"name: {name}"))
    for number in range(8):
        await sent(scheduled, number, amount=20)
    starter = scheduled.gateway.workflows._starter
    await starter.reconcile()
    await Workflows(scheduled).pass_time(61)

    async def has_started() -> bool:
        await starter.run_once()
        return bool(await runs(scheduled))

    await until(has_started)
    slow = await starter.schedule_of("default", "a-slow")
    assert slow is not None and await starter._schedules.starts_of(slow, wanted=False)


async def test_a_removed_workflow_starts_no_more_runs(scheduled: House) -> None:
    await added(scheduled, flow(f"schedule: {{every: PT1H}}\n{PAUSE}"))
    await Workflows(scheduled).desk.ask("DELETE", "/api/workflows/flow")
    await Workflows(scheduled).pass_time(3601)
    assert await runs(scheduled) == []


@pytest.mark.parametrize(
    ("body", "extras", "path"),
    [
        ("schedule: {every: PT1H}\n", "", "/schedule"),
        ("schedule: {every: PT1H}\n", "runAs: nobody", "/document/metadata/gateway/runAs"),
        ("schedule: {every: PT0.5S}\n", "runAs: nightly", "/schedule/every"),
        ("schedule: {after: '${ .x }'}\n", "runAs: nightly", "/schedule/after"),
        ("schedule: {cron: '61 * * * *'}\n", "runAs: nightly", "/schedule/cron"),
        ("schedule: {cron: '* * * * * *'}\n", "runAs: nightly", "/schedule/cron"),
        ("schedule: {on: {all: [{with: {type: a}}]}}\n", "runAs: nightly", "/schedule/on"),
        ("schedule: {on: {one: {with: {type: a}, correlate: {k: {from: .id}}}}}\n", "runAs: nightly", "/schedule/on/one/correlate"),
        ("", "runAs: nightly", "/document/metadata/gateway/runAs"),
        ("", "concurrency: {runs: 1, overlap: skip}", "/document/metadata/gateway/concurrency/overlap"),
        ("", "schedule: {missed: skip}", "/document/metadata/gateway/schedule/missed"),
        ("schedule: {every: PT1H}\n", "runAs: nightly, schedule: {timezone: UTC}", "/document/metadata/gateway/schedule/timezone"),
        (
            "schedule: {cron: '0 6 * * *'}\n",
            "runAs: nightly, schedule: {timezone: Mars/Olympus}",
            "/document/metadata/gateway/schedule/timezone",
        ),
        ("schedule: {after: PT1H}\n", "runAs: nightly, schedule: {missed: all}", "/document/metadata/gateway/schedule/missed"),
        ("schedule: {every: PT1H}\n", "runAs: nightly, schedule: {missed: never}", "/document/metadata/gateway/schedule/missed"),
    ],
)
async def test_a_schedule_that_can_not_run_is_refused(scheduled: House, body: str, extras: str, path: str) -> None:
    answer = await uploaded(scheduled, flow(body + PAUSE, extras))
    assert (answer.status_code, [each["path"] for each in answer.json().get("problems", [])]) == (422, [path]), answer.text


async def test_only_who_may_use_a_service_principal_uploads_its_workflow(scheduled: House) -> None:  # attack WFL-03
    refused = await uploaded(scheduled, flow(f"schedule: {{every: PT1H}}\n{PAUSE}"), "ursula")
    assert (refused.status_code, refused.json()["decision"]["missing"]) == (403, ["workflow:run-as/nightly (user)"]), refused.text
    allowed = await uploaded(scheduled, flow(f"schedule: {{every: PT1H}}\n{PAUSE}", "runAs: narrow"), "ursula")
    assert allowed.status_code == 201, allowed.text


async def test_an_event_neither_chooses_nor_widens_the_principal(scheduled: House) -> None:  # attack WFL-03
    server = await scheduled.server("inventory", "reserve")
    sales = await scheduled.agent(CallbackAgent("sales"))
    take = ASK + "- take:\n    call: gateway.tool\n    with: {tool: inventory.reserve, arguments: {}}\n"
    await added(scheduled, flow(ON + take))
    forged = {"runAs": "admin", "metadata": {"gateway": {"runAs": "admin"}}, "subject": "admin", "roles": ["operator"], "amount": 50}
    event = {"specversion": "1.0", "id": "e1", "source": "https://shop.example", "type": "test.order", "data": forged}
    event |= {"runas": "admin", "subject": "default|interlock-development|admin", "owner": "admin"}
    for _ in range(3):
        assert (await Workflows(scheduled).desk.ask("POST", "/api/events", "admin", event)).status_code == 202
    (row,) = await all_ended(scheduled, 1)
    assert (row.owner, row.state) == ("default|urn:interlock:service|nightly", "TASK_STATE_FAILED")
    assert (len(sales.requests), server.calls) == (1, [])


async def test_a_ceiling_narrows_what_the_roles_of_a_service_allow(scheduled: House) -> None:  # attack WFL-03
    sales = await scheduled.agent(CallbackAgent("sales"))
    await added(scheduled, flow(f"schedule: {{every: PT1H}}\n{ASK}", "runAs: narrow"))
    await Workflows(scheduled).pass_time(3601)
    (row,) = await all_ended(scheduled, 1)
    assert (row.state, sales.requests) == ("TASK_STATE_FAILED", [])


async def test_a_service_without_the_right_to_an_event_is_not_started_by_it(scheduled: House) -> None:  # attack WFL-03
    await added(scheduled, flow(ON + PAUSE, "runAs: narrow"))
    await sent(scheduled, 1, amount=50)
    assert await runs(scheduled) == []


async def test_a_stopped_service_starts_nothing(scheduled: House) -> None:  # attack WFL-03
    await added(scheduled, flow(f"schedule: {{every: PT1H}}\n{PAUSE}"))
    killed = await Workflows(scheduled).desk.ask(
        "POST", "/api/kill", "admin", {"kind": "user", "name": "default|urn:interlock:service|nightly"}
    )
    assert killed.status_code in (200, 201), killed.text
    await Workflows(scheduled).pass_time(3601)
    assert await runs(scheduled) == []


async def test_nobody_signs_in_as_a_service_principal(scheduled: House) -> None:  # attack WFL-03
    await added(scheduled, flow(f"schedule: {{every: PT1H}}\n{PAUSE}"))
    shown = await Workflows(scheduled).desk.ask("GET", "/api/workflows/flow", "nightly")
    assert shown.status_code == 200  # a person of the same name is a person, with the rights of one
    run = await Workflows(scheduled).start("flow", user="nightly")
    owners = {row.id: row.owner for row in await runs(scheduled)}
    assert owners[run] == "default|interlock-development|nightly"


async def test_two_processes_start_a_due_run_once(tmp_path: Path, postgres_url: str) -> None:
    settings = {"service_principals": SERVICES, "roles": ROLES, "users": USERS}
    async with two(tmp_path / "home", postgres_url, **settings) as (one, other):
        await added(one, flow(f"schedule: {{every: PT1H}}\n{PAUSE}"))
        await other.gateway.database.refresh_epochs()
        await asyncio.gather(Workflows(one).pass_time(3601), Workflows(other).pass_time(3601))
        await until_suspended(one, 1)
        await Workflows(other).pass_time(10)
        assert len(await runs(one)) == 1
