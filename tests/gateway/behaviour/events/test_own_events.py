"""Events of the gateway's own: in the commit of what they tell, for those who may see it, and none where nothing waits for them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from gateway.events.own_types import OWN_TYPES
from gateway.events.recorder import EventRecorder
from gateway.events.tables import event_outbox
from gateway.storage.database import Batch, Database
from gateway.workflows.runs.tables import workflow_events
from tests.fakes.event_house import ROLES, SERVICES, USERS, event_house, stored
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

CHOOSE = "do:\n- which:\n    call: gateway.choose\n    with: {prompt: 'Which?', options: [a, b]}\n"
POLICY = '@id("ask") @ask("Really?") forbid(principal, action == Action::"invokeAgent", resource == Agent::"asked");\n'
LISTEN = "do:\n- ended: {listen: {to: {one: {with: {type: interlock.task.ended.v1}}}, read: envelope}}\n"
ON = "schedule: {on: {one: {with: {type: interlock.task.ended.v1}}}}\n"
HEAD = "document: {dsl: 1.0.3, namespace: t, name: flow, version: 1.0.0, metadata: {gateway: {runAs: %s}}}\n"


@pytest.fixture
async def telling(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with event_house(tmp_path, database_url, events={"record": ["interlock.*"]}) as built:
        yield built


async def relayed(home: House) -> None:
    await home.gateway.workflows.wake_once()


async def kinds(home: House, user: str = "admin") -> list[str]:
    await relayed(home)
    return [event["type"].removeprefix("interlock.").removesuffix(".v1") for event in await stored(home, user)]


async def of_type(home: House, kind: str, user: str = "admin") -> list[dict[str, Any]]:
    await relayed(home)
    return await stored(home, user, f"interlock.{kind}.v1")


async def test_an_ended_task_is_told_to_its_owner_and_to_auditors(telling: House) -> None:
    await telling.agent(CallbackAgent("sales"))
    task = (await telling.send(telling.token("alice"), "sales", "hello"))["result"]["task"]["id"]
    (event,) = await of_type(telling, "task.ended", "alice")
    owner = "default|interlock-development|alice"
    assert (event["source"], event["subject"], event["interlockowner"]) == ("urn:interlock:gateway", task, owner)
    assert event["data"] == {"task": task, "agent": "sales", "state": "TASK_STATE_COMPLETED", "owner": owner, "parent": ""}
    assert await of_type(telling, "task.ended", "admin") == [event]
    assert await of_type(telling, "task.ended", "bob") == []


async def test_a_run_tells_that_it_waits_and_that_it_has_ended(telling: House) -> None:
    workflows = Workflows(telling)
    await workflows.add("choose", CHOOSE)
    run = await workflows.start("choose")
    await workflows.reached(run, "INPUT_REQUIRED")
    (checkpoint,) = await workflows.checkpoints()
    await workflows.answer(checkpoint["id"], "a", "alice")
    await workflows.ended(run)
    (waiting, *_), (ended,) = await of_type(telling, "run.waiting", "alice"), await of_type(telling, "run.ended", "alice")
    assert (waiting["subject"], ended["subject"], ended["data"]["workflow"]) == (run, run, "choose")
    assert "task.ended" in await kinds(telling, "alice") and await of_type(telling, "run.ended", "bob") == []
    assert [event["subject"] for event in await of_type(telling, "checkpoint.answered", "alice")] == [checkpoint["id"]]


async def test_an_approval_is_told_to_its_requester_and_to_approvers(tmp_path: Path, database_url: str) -> None:
    policies = tmp_path / "policies"
    policies.mkdir()
    (policies / "ask.cedar").write_text(POLICY)
    async with event_house(tmp_path, database_url, policies=str(policies), events={"record": ["interlock.approval.*"]}) as home:
        workflows = Workflows(home)
        await workflows.add("asked", CHOOSE)
        await workflows.run("asked")
        (approval,) = (await workflows.desk.ask("GET", "/api/approvals")).json()["items"]
        await workflows.desk.ask("POST", f"/api/approvals/{approval['id']}/decision", body={"decision": "deny", "reason": "no"})
        expected = ["approval.requested", "approval.decided"]
        assert await kinds(home, "alice") == await kinds(home, "ada") == expected
        assert await kinds(home, "bob") == []


async def test_changes_of_the_registry_and_kills_are_told_to_auditors(telling: House) -> None:
    await telling.agent(CallbackAgent("sales"))
    desk = Workflows(telling).desk
    killed = (await desk.ask("POST", "/api/kill", "admin", {"kind": "agent", "name": "sales", "reason": "it lies"})).json()
    assert (await desk.ask("DELETE", f"/api/kill/{killed['id']}")).is_success
    assert await kinds(telling) == ["registry.changed", "kill.set", "kill.lifted"]
    (changed, *_), (kill,) = await of_type(telling, "registry.changed"), await of_type(telling, "kill.set")
    assert (changed["subject"], changed["data"]["verb"]) == ("agent/sales", "register")
    assert (kill["subject"], kill["data"]["reason"]) == ("agent/sales", "it lies")
    assert await kinds(telling, "alice") == []


async def test_nothing_is_written_where_nothing_waits_for_it(tmp_path: Path, database_url: str) -> None:
    async with house(tmp_path / "home", database_url, roles=ROLES, users=USERS) as home:
        await home.agent(CallbackAgent("sales"))
        await home.send(home.token("alice"), "sales", "hello")
        query = select(func.count()).select_from(event_outbox)
        assert await home.gateway.database.read(lambda connection: connection.execute(query).scalar()) == 0
        assert not any(home.gateway.events.recorder.wants("default", kind) for kind in OWN_TYPES)
        assert "_parts" not in home.gateway.workflows.__dict__


async def test_an_event_is_kept_only_with_the_commit_that_it_tells_of(database: Database) -> None:
    recorder = EventRecorder(OWN_TYPES, {})

    def work(batch: Batch, is_failing: bool) -> None:
        recorder.record_event(
            batch, "default", "interlock.state.changed.v1", "customer/1", {"value": 1}, permission="state:read:customer/1"
        )
        if is_failing:
            raise LookupError

    with pytest.raises(LookupError):
        await database.write(lambda batch: work(batch, is_failing=True))
    assert await database.read(lambda connection: connection.execute(select(event_outbox.c.id)).all()) == []
    await database.write(lambda batch: work(batch, is_failing=False))
    assert len(await database.read(lambda connection: connection.execute(select(event_outbox.c.id)).all())) == 1


async def test_readers_of_a_key_see_that_its_value_has_changed(telling: House) -> None:
    def work(batch: Batch) -> None:
        permission = "state:read:events/customer"  # which the role of alice has
        telling.gateway.events.recorder.record_event(batch, "default", "interlock.state.changed.v1", "customer", {}, permission=permission)

    await telling.gateway.database.write(work)
    assert len(await of_type(telling, "state.changed", "alice")) == 1
    await telling.gateway.database.write(
        lambda batch: telling.gateway.events.recorder.record_event(
            batch, "default", "interlock.claim.changed.v1", "customer", {}, permission="state:read:other"
        )
    )
    assert await of_type(telling, "claim.changed", "alice") == [] and len(await of_type(telling, "claim.changed")) == 1


async def test_an_event_that_is_too_large_is_told_without_its_data(telling: House) -> None:
    recorder = telling.gateway.events.recorder
    await telling.gateway.database.write(
        lambda batch: recorder.record_event(batch, "default", "interlock.state.changed.v1", "k", {"value": "x" * 100_000})
    )
    assert [event["data"] for event in await of_type(telling, "state.changed")] == [{"too_large": True}]


async def test_a_run_listens_for_events_of_its_person_alone(tmp_path: Path, database_url: str) -> None:
    async with event_house(tmp_path, database_url) as home:
        await listen_for_own_tasks(home)


async def listen_for_own_tasks(home: House) -> None:
    workflows = Workflows(home)
    await home.agent(CallbackAgent("sales"))
    await workflows.add("waits", LISTEN)
    run = await workflows.start("waits")
    await workflows.reached(run, "SUSPENDED")

    async def is_awaited() -> bool:
        await home.gateway.database.refresh_epochs()
        return home.gateway.events.recorder.wants("default", "interlock.task.ended.v1")

    await until(is_awaited)
    await home.send(home.token("bob"), "sales", "hello")
    await relayed(home)
    assert (await workflows.show(run))["state"] == "TASK_STATE_WORKING"
    task = (await home.send(home.token("alice"), "sales", "hello"))["result"]["task"]["id"]
    await relayed(home)
    assert [event["subject"] for event in await workflows.output(run)] == [task]


@pytest.mark.parametrize(("service", "count"), [("nightly", 0), ("auditor", 1)])
async def test_an_event_of_a_person_starts_only_who_may_see_it(tmp_path: Path, database_url: str, service: str, count: int) -> None:
    async with house(tmp_path / "home", database_url, service_principals=SERVICES, roles=ROLES, users=USERS) as home:
        sales = await home.agent(CallbackAgent("sales"))
        text = HEAD % service + ON + "do:\n- note: {set: {noted: true}}\n"
        assert (await Workflows(home).desk.ask("POST", "/api/workflows", "admin", {"document": text})).status_code == 201
        await home.gateway.database.refresh_epochs()
        await relayed(home)
        await home.gateway.database.refresh_epochs()
        await home.send(home.token("alice"), "sales", "hello")
        assert len(sales.requests) == 1

        async def is_settled() -> bool:
            await relayed(home)
            (trigger,) = (await Workflows(home).desk.ask("GET", "/api/triggers")).json()["items"]
            return bool(trigger["last_run"] or trigger["problem"])

        await until(is_settled)
        (trigger,) = (await Workflows(home).desk.ask("GET", "/api/triggers")).json()["items"]
        assert bool(trigger["last_run"]) is bool(count) and ("audit:read" in (trigger["problem"] or "")) is not bool(count)
        assert await home.gateway.database.read(lambda c: c.execute(select(func.count()).select_from(workflow_events)).scalar())


async def test_changes_of_the_board_are_told_without_their_values(telling: House) -> None:
    admin = {"authorization": f"Bearer {telling.token('admin')}"}
    assert (await telling.http.put("/api/state/customer/42/status", json="gold", headers=admin)).status_code == 201
    assert (await telling.http.delete("/api/state/customer/42/status", headers={**admin, "if-match": '"1"'})).status_code == 200
    told = await of_type(telling, "state.changed")
    assert sorted(event["data"]["version"] for event in told) == [1, 2]
    assert {event["subject"] for event in told} == {"customer/42/status"}
    assert "gold" not in str(told)
    assert await of_type(telling, "state.changed", "alice") == []


async def test_claims_that_are_taken_and_released_are_told(telling: House) -> None:
    admin = {"authorization": f"Bearer {telling.token('admin')}"}
    taken = (await telling.http.post("/api/claims", json={"subject": "customer:42"}, headers=admin)).json()
    released = await telling.http.delete(f"/api/claims/{taken['id']}", params={"token": taken["token"]}, headers=admin)
    assert released.status_code == 200
    told = await of_type(telling, "claim.changed")
    assert sorted((event["subject"], event["data"]["change"]) for event in told) == [("customer:42", "released"), ("customer:42", "taken")]
    assert await of_type(telling, "claim.changed", "alice") == []


async def test_an_event_that_cannot_be_read_holds_up_no_other(telling: House) -> None:
    database, recorder = telling.gateway.database, telling.gateway.events.recorder
    for key in ("one", "two", "three"):
        await database.write(lambda batch, key=key: recorder.record_event(batch, "default", "interlock.state.changed.v1", key, {}))
    spoil = update(event_outbox).values(data='["shortened').where(event_outbox.c.subject == "one")
    odd = update(event_outbox).values(data="[]").where(event_outbox.c.subject == "two")
    await database.write(lambda batch: [batch.connection.execute(each) for each in (spoil, odd)])
    assert [event["subject"] for event in await of_type(telling, "state.changed")] == ["three"]
    assert await database.read(lambda connection: connection.execute(select(event_outbox.c.id)).all()) == []
