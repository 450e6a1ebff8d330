"""Tasks of documents that claim a subject: held while the task lasts, in any process, and lost only to a higher priority."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from gateway.state.claims.tables import claims
from gateway.workflows.runs.tables import workflow_claims, workflow_runs
from policies.ids import now_us
from tests.fakes.house import CallbackAgent, house, two
from tests.fakes.reception import Reception
from tests.fakes.subject_versions import read_subject_version
from tests.fakes.waiting import until
from tests.fakes.workflows import Gate, Workflows
from tests.gateway.behaviour.workflows.test_takeover_of_runs import crashed

ROLES = {
    "operator": ["*"],
    "desk": ["agent:*", "tool:*", "state:write:customer/*"],
    "reader": ["agent:*", "tool:*", "state:read:customer/*"],
}
USERS = {"ann": {"roles": ["desk"]}, "bob": {"roles": ["desk"]}, "rita": {"roles": ["reader"]}}
CLAIM = """{subject: '${ "customer:\\(.id)" }', effect: outbound-email, purpose: '${ "ticket \\(.id)" }', %s}"""
AI = "metadata: {gateway: {kind: ai}}, input: {schema: {document: {}}}, output: {schema: {document: {}}}"
ASK = "{call: gateway.signal, with: {name: go}}"
SLOW = f"{{call: gateway.agent, with: {{agent: slow, input: go}}, {AI}}}"
BLOCK = """
do:
- care:
    metadata: {gateway: {claim: @}}
    do:
    - step: %s
    - token: {set: {token: '${ $claim.token }', subject: '${ $claim.subject }'}}
"""
CAUGHT = """
do:
- outer:
    try:
    - care:
        metadata: {gateway: {claim: @}}
        do:
        - inner: {try: [{step: %s}], catch: {do: [{wrong: {set: {wrong: true}}}]}}
    catch:
      do:
      - told: {set: {type: '${ $error.type }', status: '${ $error.status }'}}
      - later: {call: gateway.signal, with: {name: later}, output: {as: '$input'}}
"""
UNDONE = """
use:
  functions:
    undo: {call: gateway.agent, with: {agent: slow, input: undo}, %s}
do:
- care:
    metadata: {gateway: {claim: @}}
    do:
    - sent: {call: gateway.tool, with: {tool: mail.send, arguments: {}}, metadata: {gateway: {compensate: undo}}}
    - fail: {raise: {error: {type: 'urn:tests:no', status: 409}}}
"""


def body(text: str, step: str = "", **members: Any) -> str:
    said = ", ".join(f"{name}: {value}" for name, value in members.items())
    return (text % step if "%s" in text else text).replace("@", CLAIM % said)


class Desk(Workflows):
    """Runs of ann, and claims of bob on the same customer."""

    async def begin(self, text: str) -> str:
        await self.add("care", text)
        return await self.start("care", {"id": 42}, "ann")

    async def taken(self, priority: int = 100, **more: Any) -> Any:
        return await Reception(self.home).post("/api/claims", "bob", subject="customer:42", priority=priority, **more)

    async def claim_rows(self) -> list[Any]:
        query = select(claims).where(claims.c.subject == "customer:42").order_by(claims.c.token)
        return await self.home.gateway.database.read(lambda connection: connection.execute(query).all())

    async def tend(self) -> None:
        await self.home.gateway.workflows.tend_claims()
        await self.home.gateway.workflows.wake_once()

    async def signal(self, run: str, name: str = "go") -> None:
        await self.desk.ask("POST", f"/api/runs/{run}/signal", "ann", {"name": name, "data": {}})


async def subject_version(desk: Desk) -> int:
    return await desk.home.gateway.database.read(lambda connection: read_subject_version(connection, "default", "customer:42"))


@pytest.fixture
async def desk(tmp_path: Path, database_url: str) -> AsyncIterator[Desk]:
    async with house(tmp_path / "home", database_url, roles=ROLES, users=USERS) as built:
        yield Desk(built)


@pytest.fixture
async def light_desk(tmp_path: Path, light_url: str) -> AsyncIterator[Desk]:
    async with house(tmp_path / "home", light_url, roles=ROLES, users=USERS) as built:
        yield Desk(built)


async def test_a_task_holds_its_claim_until_it_ends(desk: Desk) -> None:
    run = await desk.begin(body(BLOCK, ASK))
    await desk.reached(run, "SUSPENDED", user="ann")
    refused = await desk.taken()
    assert (refused.status_code, refused.json()["reason_id"]) == (409, "claim-denied") and "ticket 42" in refused.json()["detail"]
    await desk.signal(run)
    output = await desk.output(run, "ann")
    (row,) = await desk.claim_rows()
    assert output == {"token": row.token, "subject": "customer:42"}
    assert (row.effect, row.ended_as) == ("outbound-email", "released") and (await desk.taken()).status_code == 201


async def test_the_lease_is_renewed_while_the_run_only_waits(desk: Desk) -> None:
    run = await desk.begin(body(BLOCK, ASK, lease="PT10M"))
    await desk.reached(run, "SUSPENDED", user="ann")
    soon = now_us() + 300_000_000
    await desk.home.gateway.database.write(lambda batch: batch.connection.execute(update(claims).values(until=soon)))
    before = await subject_version(desk)
    await desk.tend()
    (row,) = await desk.claim_rows()
    assert row.until > soon + 290_000_000 and row.state == "held"
    assert await subject_version(desk) == before + 1  # a ruling that saw the lease end is ruled on again


async def test_a_run_goes_on_waiting_while_another_claim_is_renewed(desk: Desk) -> None:
    holder = await desk.begin(body(BLOCK, ASK, lease="PT10M", wait="PT1H"))
    await desk.reached(holder, "SUSPENDED", user="ann")
    waiting = await desk.start("care", {"id": 42}, "bob")
    await desk.reached(waiting, "SUSPENDED", user="bob")
    soon = now_us() + 300_000_000
    await desk.home.gateway.database.write(lambda batch: batch.connection.execute(update(claims).values(until=soon)))
    await desk.home.gateway.workflows.tend_claims()
    query = select(workflow_claims.c.version).where(workflow_claims.c.state == "waiting")
    versions = await desk.home.gateway.database.read(lambda connection: connection.execute(query).scalars().all())
    assert versions == [await subject_version(desk)]
    woken = select(workflow_runs.c.wake_at).where(workflow_runs.c.id == waiting)
    (at,) = await desk.home.gateway.database.read(lambda connection: connection.execute(woken).scalars().all())
    assert at is None or at > now_us()


async def test_a_lost_claim_cancels_the_step_and_is_caught_outside(desk: Desk) -> None:
    gate = Gate()
    await desk.home.agent(CallbackAgent("slow", gate.act))
    run = await desk.begin(body(CAUGHT, SLOW))
    await gate.reached.wait()
    assert (await desk.taken(200)).status_code == 201

    async def has_caught() -> bool:
        await desk.tend()
        return "/later" in (await desk.show(run, "ann"))["note"]

    await until(has_caught)
    gate.opened.set()
    await desk.signal(run, "later")
    assert await desk.output(run, "ann") == {"type": "urn:interlock:error:claim-lost", "status": 409}


async def test_a_waiting_run_learns_that_its_claim_is_lost(desk: Desk) -> None:
    run = await desk.begin(body(CAUGHT, ASK))
    await desk.reached(run, "SUSPENDED", user="ann")
    await desk.taken(200)

    async def has_caught() -> bool:
        await desk.tend()
        return "/later" in (await desk.show(run, "ann"))["note"]

    await until(has_caught)
    await desk.signal(run, "later")
    assert (await desk.output(run, "ann"))["type"] == "urn:interlock:error:claim-lost"


async def test_a_run_waits_until_the_claim_of_another_is_released(desk: Desk) -> None:
    held = (await desk.taken()).json()
    run = await desk.begin(body(BLOCK, "{set: {done: true}}", wait="PT1H"))
    assert "waits for customer:42: Another person has claimed" in (await desk.reached(run, "SUSPENDED", user="ann"))["note"]
    await Reception(desk.home).ask("DELETE", f"/api/claims/{held['id']}?token={held['token']}", "bob")
    await desk.tend()
    assert (await desk.output(run, "ann"))["token"] > held["token"]


async def test_a_wait_for_a_claim_ends(light_desk: Desk) -> None:
    await light_desk.taken(seconds=7200)
    run = await light_desk.begin(body(BLOCK, ASK, wait="PT1H"))
    await light_desk.reached(run, "SUSPENDED", user="ann")
    await light_desk.pass_time(3601)
    assert (await light_desk.ended(run, "ann"))["fault"]["type"] == "urn:interlock:error:claim-denied"


async def test_a_refused_claim_is_an_error_that_a_document_catches(light_desk: Desk) -> None:
    await light_desk.taken()
    run = await light_desk.begin(body(CAUGHT, ASK))
    assert "/later" in (await light_desk.reached(run, "SUSPENDED", user="ann"))["note"]
    await light_desk.signal(run, "later")
    assert await light_desk.output(run, "ann") == {"type": "urn:interlock:error:claim-denied", "status": 409}


async def test_a_run_without_the_right_takes_no_claim(light_desk: Desk) -> None:
    await light_desk.add("care", body(BLOCK, ASK))
    run = await light_desk.start("care", {"id": 42}, "rita")
    fault = (await light_desk.ended(run, "rita"))["fault"]
    assert fault["status"] == 403 and "state:write:customer/42/claims" in fault["detail"]
    assert await light_desk.claim_rows() == []


async def test_a_failed_task_keeps_its_claim_until_it_is_undone(light_desk: Desk) -> None:
    await light_desk.home.server("mail", "send")
    found: list[str] = []

    async def undo(_token: str, _text: str) -> str:
        found.extend(row.state for row in await light_desk.claim_rows())
        return "undone"

    await light_desk.home.agent(CallbackAgent("slow", undo))
    run = await light_desk.begin(body(UNDONE, AI, coolDown="P1D"))
    assert (await light_desk.ended(run, "ann"))["fault"]["type"] == "urn:tests:no"
    (row,) = await light_desk.claim_rows()
    assert found == ["held"] and (row.state, row.ended_as) == ("cooling", "released")


@pytest.mark.parametrize(
    "text",
    [
        "- outer: {try: [{care: {metadata: {gateway: {claim: @}}, do: [{no: {raise: {error: {type: 'urn:tests:no', status: 409}}}}]}}], "
        "catch: {do: [{on: {set: {caught: true}}}]}}",
        "- race: {fork: {compete: true, branches: [{care: {metadata: {gateway: {claim: @}}, do: [{step: {wait: PT1H}}]}}, "
        "{fast: {wait: PT0.1S}}]}}",
    ],
)
async def test_a_claim_is_released_once_the_run_goes_on_without_its_task(light_desk: Desk, text: str) -> None:
    run = await light_desk.begin(body(f"\ndo:\n{text}\n- later: {{call: gateway.signal, with: {{name: later}}}}\n"))

    async def waits_later() -> bool:
        return "/later" in (await light_desk.show(run, "ann"))["note"]

    async def is_released() -> bool:
        return [(row.state, row.ended_as) for row in await light_desk.claim_rows()] == [("ended", "released")]

    await until(waits_later)
    await until(is_released)
    assert (await light_desk.taken()).status_code == 201


async def test_a_canceled_run_releases_its_claim(desk: Desk) -> None:
    run = await desk.begin(body(BLOCK, ASK))
    await desk.reached(run, "SUSPENDED", user="ann")
    desk.home.gateway.workflows._parts.claims.claims._known.clear()  # as in a process that has not seen the run
    await desk.desk.ask("POST", f"/api/runs/{run}/cancel", "ann", {})
    await desk.ended(run, "ann")
    await desk.tend()
    assert [row.state for row in await desk.claim_rows()] == ["ended"]
    query = select(workflow_claims)
    assert await desk.home.gateway.database.read(lambda connection: connection.execute(query).all()) == []


async def test_another_process_goes_on_with_the_same_token(tmp_path: Path, postgres_url: str) -> None:
    """The process ends between the commit of the claim and that of the journal."""
    async with two(tmp_path / "home", postgres_url, roles=ROLES, users=USERS) as (one, other):
        here, there = Desk(one), Desk(other)
        await here.add("care", body(BLOCK, ASK))
        await other.gateway.database.refresh_epochs()
        run = await here.start("care", {"id": 42}, "ann")
        await here.reached(run, "SUSPENDED", user="ann")
        (before,) = await here.claim_rows()
        await crashed(one)
        for statement in ("DELETE FROM workflow_claims", "DELETE FROM workflow_steps WHERE kind = 'claim'"):
            await other.gateway.database.write(lambda batch, statement=statement: batch.run(statement, ()))
        assert (await there.taken()).status_code == 409
        await there.signal(run)
        assert (await there.output(run, "ann"))["token"] == before.token
        assert [(row.id, row.ended_as) for row in await there.claim_rows()] == [(before.id, "released")]
