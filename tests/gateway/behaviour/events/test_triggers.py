"""Triggers of the settings: each event starts once, in order per subject, by the rights of the service that an operator named."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import select

from gateway.server.composition.process import Gateway
from gateway.server.settings import BadSettings, Settings
from gateway.storage.tables import tasks
from tests.fakes.event_house import ROLES, SERVICES, USERS, dead_letters, event_house, send_event, triggers
from tests.fakes.house import CallbackAgent, House, ToolServer, two
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

ASKED = {"name": "ask", "type": "shop.paid", "run_as": "nightly", "agent": "sales", "message": "Order {data.order} of {subject}"}
TOOL = {"name": "take", "type": "shop.paid", "run_as": "nightly", "tool": "inventory.reserve", "arguments": {"sku": "{data.sku}", "n": 1}}
FLOW = {"name": "flow", "type": "shop.paid", "run_as": "nightly", "workflow": "note", "input": {"order": "{data.order}"}}
NOTE = "do:\n- note: {set: '${ {noted: .order} }'}\n"
POLICY = '@id("ask") @ask("Really?") forbid(principal, action == Action::"invokeAgent", resource == Agent::"sales");\n'


@asynccontextmanager
async def triggered(folder: Path, database_url: str, *rules: dict[str, Any], **settings: Any) -> AsyncIterator[tuple[House, CallbackAgent]]:
    """A house whose triggers are `rules`, with the agent `sales`. Starts are made by `started` alone."""
    async with event_house(folder, database_url, triggers=list(rules), **settings) as home:
        sales = await home.agent(CallbackAgent("sales"))
        yield home, sales


async def started(home: House, count: int, name: str = "ask") -> None:
    """Waits until a trigger has nothing to do any more, and has started `count` tasks."""

    async def is_done() -> bool:
        await home.gateway.workflows.wake_once()
        trigger = (await triggers(home))[name]
        return trigger["waiting"] == 0 and len(await service_tasks(home)) == count

    await until(is_done)


async def service_tasks(home: House) -> list[Any]:
    query = select(tasks).where(tasks.c.owner.in_([f"default|urn:interlock:service|{name}" for name in SERVICES])).order_by(tasks.c.id)
    return list(await home.gateway.database.read(lambda connection: connection.execute(query).all()))


async def has_problem(home: House, name: str = "ask") -> str:
    """The problem of a trigger, once it has one."""

    async def is_there() -> bool:
        await home.gateway.workflows.wake_once()
        return bool((await triggers(home))[name]["problem"])

    await until(is_there)
    return str((await triggers(home))[name]["problem"])


def texts(agent: CallbackAgent) -> list[str]:
    return [each["params"]["message"]["parts"][0]["text"] for each in agent.requests]


async def test_an_event_sends_the_message_of_its_template_once(tmp_path: Path, database_url: str) -> None:
    async with triggered(tmp_path, database_url, ASKED) as (home, sales):
        for _ in range(3):
            assert (await send_event(home, subject="customer/1", data={"order": 7})).status_code == 202
        await started(home, 1)
        await until(lambda: len(sales.requests) == 1)
        assert texts(sales) == ["Order 7 of customer/1"]
        (row,) = await service_tasks(home)
        assert (row.owner, (await triggers(home))["ask"]["last_run"]) == ("default|urn:interlock:service|nightly", row.id)


async def test_an_event_that_the_gateway_has_forgotten_starts_nothing_again(tmp_path: Path, database_url: str) -> None:
    async with triggered(tmp_path, database_url, ASKED) as (home, sales):
        await send_event(home, subject="customer/1", data={"order": 7})
        await started(home, 1)
        await home.gateway.database.write(lambda batch: batch.run("DELETE FROM workflow_events", ()))  # as after 7 days
        assert (await send_event(home, subject="customer/1", data={"order": 7})).json()["repeated"] == 0
        await started(home, 1)
        await until(lambda: len(sales.requests) == 1)


async def test_an_event_starts_a_workflow_with_its_input(tmp_path: Path, database_url: str) -> None:
    async with triggered(tmp_path, database_url, FLOW) as (home, _):
        await Workflows(home).add("note", NOTE)
        await send_event(home, data={"order": 7, "input": {"order": 8}, "workflow": "other"})
        await started(home, 1, "flow")
        (row,) = await service_tasks(home)

        async def has_ended() -> bool:
            return (await service_tasks(home))[0].state == "TASK_STATE_COMPLETED"

        await until(has_ended)
        record = await home.gateway.stores.tasks.read_record("default", row.owner, row.id)
        assert (row.agent, record.to_task().artifacts[0].parts[0].data) == ("note", {"noted": 7})


async def test_an_event_calls_a_tool_with_its_arguments(tmp_path: Path, database_url: str) -> None:
    async with triggered(tmp_path, database_url, TOOL) as (home, _):
        server: ToolServer = await home.server("inventory", "reserve", "release")
        await send_event(home, data={"sku": "a", "tool": "inventory.release", "n": 99})
        await started(home, 1, "take")
        await until(lambda: bool(server.calls))
        assert server.calls == [("reserve", {"sku": "a", "n": 1})]


FILTERS: list[tuple[dict[str, str], set[str]]] = [
    ({"source": "https://shop.example"}, {"3", "30"}),
    ({"source": "https://other.example"}, set()),
    ({"data": "${ .order > 10 }"}, {"30"}),
    ({"subject": '${ startswith("customer/") }'}, set()),
    ({"id": '${ .id == "e1" }'}, {"3"}),
]


async def test_a_filter_chooses_the_events(tmp_path: Path, database_url: str) -> None:
    named = [ASKED | {"name": f"t{n}", "filter": given, "message": f"t{n} {{data.order}}"} for n, (given, _) in enumerate(FILTERS)]
    async with triggered(tmp_path, database_url, *named) as (home, sales):
        await send_event(home, 1, data={"order": 3})
        await send_event(home, 2, data={"order": 30})
        expected = {f"t{n} {order}" for n, (_, orders) in enumerate(FILTERS) for order in orders}
        for n in range(len(FILTERS)):
            await started(home, len(expected), f"t{n}")
        await until(lambda: len(sales.requests) == len(expected))
        assert set(texts(sales)) == expected


async def test_starts_of_one_subject_keep_the_order_of_its_events(tmp_path: Path, database_url: str) -> None:
    async with triggered(tmp_path, database_url, ASKED) as (home, _):
        await home.gateway.periodic_tasks.stop()
        events = [
            {"specversion": "1.0", "id": f"e{n}", "source": "s", "type": "shop.paid", "subject": "c/1", "data": {"order": n}}
            for n in range(12)
        ]
        answer = await Workflows(home).desk.ask("POST", "/api/events", "admin", events)
        assert answer.status_code == 202
        await started(home, 12)
        rows = sorted(await service_tasks(home), key=lambda row: (row.created, row.id))
        records = [await home.gateway.stores.tasks.read_record("default", row.owner, row.id) for row in rows]
        assert [record.to_task().history[0].parts[0].text for record in records] == [f"Order {n} of c/1" for n in range(12)]


async def test_neither_data_nor_attributes_choose_target_or_principal(tmp_path: Path, database_url: str) -> None:  # attack WFL-03
    forged = {"run_as": "auditor", "agent": "other", "message": "{secret}", "order": "{subject} ${ .x } {data.note}", "note": "n"}
    async with triggered(tmp_path, database_url, ASKED) as (home, sales):
        other = await home.agent(CallbackAgent("other"))
        await send_event(home, subject="c/1", data=forged, runas="auditor", agent="other", owner="admin")
        await started(home, 1)
        await until(lambda: len(sales.requests) == 1)
        assert texts(sales) == ["Order {subject} ${ .x } {data.note} of c/1"] and other.requests == []
        assert [row.owner for row in await service_tasks(home)] == ["default|urn:interlock:service|nightly"]


DEAD = {
    "blind": (ASKED | {"run_as": "blind"}, "CallRefused"),
    "nobody": (ASKED | {"agent": "nobody"}, "UnknownName"),
    "missing": (ASKED | {"message": "{data.missing}"}, "ValueMissing: the event has no `data.missing`"),
    "unseen": (ASKED | {"type": "interlock.task.ended.v1", "message": "x"}, "NotSeen: nightly lacks audit:read"),
}


async def test_a_start_that_can_not_be_made_is_a_dead_letter(tmp_path: Path, database_url: str) -> None:
    async with triggered(tmp_path, database_url, *(rule | {"name": name} for name, (rule, _) in DEAD.items())) as (home, sales):
        await send_event(home, subject="c/1", data={"order": 1})
        await home.send(home.token("alice"), "sales", "hello")
        for name, (_, problem) in DEAD.items():
            assert (await has_problem(home, name)).startswith(problem)
        letters = {letter["target"]: (letter["kind"], letter["attempts"]) for letter in await dead_letters(home)}
        assert letters == dict.fromkeys(DEAD, ("trigger", 1)) and len(sales.requests) == 1
        assert [(await triggers(home))[name]["dead"] for name in DEAD] == [1] * len(DEAD)


async def test_a_dead_start_is_made_once_it_can_be(tmp_path: Path, database_url: str) -> None:
    async with triggered(tmp_path, database_url, ASKED | {"agent": "late"}) as (home, _):
        await send_event(home, subject="c/1", data={"order": 1})
        await has_problem(home)
        late = await home.agent(CallbackAgent("late"))
        (letter,) = await dead_letters(home)
        assert (await Workflows(home).desk.ask("POST", f"/api/deadletters/{letter['id']}/retry")).status_code == 204
        await started(home, 1)
        await until(lambda: len(late.requests) == 1)
        assert await dead_letters(home) == [] and (await triggers(home))["ask"]["problem"] is None


async def test_triggers_that_start_each_other_come_to_an_end(tmp_path: Path, database_url: str) -> None:
    """The agent is asked whenever a task of its own ends, so each start ends in the next one."""
    circle = {"name": "ask", "type": "interlock.task.ended.v1", "run_as": "auditor", "agent": "sales", "message": "again"}
    async with triggered(tmp_path, database_url, circle) as (home, sales):
        await home.gateway.periodic_tasks.stop()
        await home.send(home.token("alice"), "sales", "hello")

        async def is_over() -> bool:
            await home.gateway.workflows.wake_once()
            return bool(await dead_letters(home))

        await until(is_over)
        (letter,) = await dead_letters(home)
        assert letter["reason"].startswith("event-loop") and len(sales.requests) == 17


async def test_triggers_on_approvals_that_ask_for_approvals_come_to_an_end(tmp_path: Path, database_url: str) -> None:
    """The agent needs an approval, and is asked whenever one is requested."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "ask.cedar").write_text(POLICY)
    circle = {"name": "ask", "type": "interlock.approval.requested.v1", "run_as": "auditor", "agent": "sales", "message": "again"}
    async with triggered(tmp_path, database_url, circle, policies=str(folder)) as (home, sales):
        await home.gateway.periodic_tasks.stop()
        await home.gateway.workflows.wake_once()
        await home.send(home.token("alice"), "sales", "hello")

        async def is_over() -> bool:
            await home.gateway.workflows.wake_once()
            return bool(await dead_letters(home))

        await until(is_over)
        (letter,) = await dead_letters(home)
        assert letter["reason"].startswith("event-loop") and sales.requests == []


async def test_a_test_says_what_an_event_would_start_and_why_not(tmp_path: Path, database_url: str) -> None:
    rules = [ASKED, ASKED | {"name": "other", "type": "shop.other"}, ASKED | {"name": "large", "filter": {"data": "${ .order > 10 }"}}]
    async with triggered(tmp_path, database_url, *rules, ASKED | {"name": "blind", "run_as": "blind"}) as (home, sales):
        event = {"specversion": "1.0", "id": "e", "source": "s", "type": "shop.paid", "subject": "c/1", "data": {"order": 1}}
        found = (await Workflows(home).desk.ask("POST", "/api/triggers/test", "alice", event)).json()["items"]
        assert {each["name"]: each["reason"] for each in found} == {
            "ask": None,
            "other": "it starts by events of the type shop.other",
            "large": "a condition of `filter` does not hold",
            "blind": "the service principal blind lacks state:read:events/shop.paid",
        }
        assert sales.requests == [] and [each["agent"] for each in found] == ["sales"] * 4


async def test_who_sent_the_event_does_not_approve_what_it_starts(tmp_path: Path, database_url: str) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "ask.cedar").write_text(POLICY)
    async with triggered(tmp_path, database_url, ASKED, policies=str(policies)) as (home, sales):
        await send_event(home, user="ada", subject="c/1", data={"order": 1})
        await started(home, 1)
        desk = Workflows(home).desk
        (approval,) = (await desk.ask("GET", "/api/approvals", "eve")).json()["items"]
        decide = f"/api/approvals/{approval['id']}/decision"
        own = await desk.ask("POST", decide, "ada", {"decision": "approve", "reason": "mine"})
        assert (own.status_code, own.json()["reason_id"]) == (403, "approval-own")
        assert (await desk.ask("POST", decide, "eve", {"decision": "approve", "reason": "ok"})).is_success
        await until(lambda: len(sales.requests) == 1)


async def test_two_processes_start_each_event_once(tmp_path: Path, postgres_url: str) -> None:
    settings = {"service_principals": SERVICES, "roles": ROLES, "users": USERS, "triggers": [ASKED]}
    async with two(tmp_path / "home", postgres_url, **settings) as (one, other):
        sales = await one.agent(CallbackAgent("sales"))
        await other.gateway.database.refresh_epochs()
        sending = [send_event(home, n, subject=f"c/{n % 3}", data={"order": n}) for n in range(20) for home in (one, other)]
        answers = await asyncio.gather(*sending)
        assert {answer.status_code for answer in answers} == {202}
        await started(one, 20)
        await until(lambda: len(sales.requests) == 20)
        assert len(set(texts(sales))) == 20


@pytest.mark.parametrize(
    "change",
    [
        {"agent": ""},
        {"workflow": "note"},
        {"agent": "{data.agent}"},
        {"tool": "no-server", "agent": "", "message": ""},
        {"arguments": {}},
        {"type": "interlock.unknown.v1"},
        {"type": "no type"},
        {"filter": {"type": "x"}},
        {"filter": {"data": {"order": 1}}},
        {"run_as": "{data.user}"},
    ],
)
def test_a_trigger_that_can_not_work_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(service_principals=SERVICES, triggers=[ASKED | change])


def test_a_trigger_of_an_unknown_service_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="run_as"):
        Gateway(Settings(home=tmp_path / "home", triggers=[ASKED]))
