"""An agent that was vouched for is on an errand of its own: what else the person has to do is not its business, and what it did counts."""

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import ROLES, CallbackAgent, House, house
from tests.fakes.issuer import FakeIssuer, serving
from tests.fakes.waiting import until
from tests.gateway.ingress.oauth.test_id_jag import assertion, redeem

POLICY = """
@id("most") @total("amount")
forbid(principal, action == Action::"callTool", resource == Tool::"inventory.reserve")
when { context.history.totals.amount + context.input.amount > 100 };
@id("ask") @ask("Somebody has to look")
forbid(principal, action == Action::"callTool", resource == Tool::"inventory.drop");
@id("offer") @ask("Offers are looked at first")
forbid(principal, action == Action::"invokeAgent", resource == Agent::"offers");
@id("busy")
forbid(principal, action == Action::"callTool", resource == Tool::"inventory.check") when { context.task != "" };
"""


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with serving(FakeIssuer(now=time.time)) as served:
        yield served


@pytest.fixture
async def home(tmp_path: Path, database_url: str, issuer: FakeIssuer) -> AsyncIterator[House]:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "ours.cedar").write_text(POLICY)
    listed = {"issuer": issuer.url, "jwks_url": issuer.jwks_url, "tenant_claim": "tid", "tenants": ["default"], "id_jag": True}
    identity, roles = {"development": "on", "issuers": [listed]}, {**ROLES, "sales": ["agent:*", "tool:*", "approval:decide"]}
    async with house(tmp_path / "home", database_url, identity=identity, policies=str(tmp_path / "policies"), roles=roles) as built:
        await built.agent(CallbackAgent("desk"))
        await built.agent(CallbackAgent("sales"))
        await built.agent(CallbackAgent("offers"))
        yield built


def person(home: House, issuer: FakeIssuer, subject: str = "alice") -> str:
    return issuer.mint(None, aud=home.url, tid="default", roles=["sales"], sub=subject)


async def vouched(home: House, issuer: FakeIssuer) -> str:
    """A token of the agent desk, for alice, at every door."""
    answer = await redeem(home, assertion(home, issuer), resource=home.url, scope="*")
    return str(answer.json()["access_token"])


async def got(home: House, token: str, path: str) -> Any:
    return (await home.http.get(path, headers={"authorization": f"Bearer {token}"})).json()


async def test_it_sees_the_tasks_that_it_began_and_none_of_the_persons(home: House, issuer: FakeIssuer) -> None:  # attack TEN-01
    own = (await home.send(person(home, issuer), "sales", "between us"))["result"]["task"]
    token = await vouched(home, issuer)
    assert (await got(home, token, "/api/tasks"))["items"] == []
    assert "error" in await home.send_get(token, "sales", own["id"])
    begun = (await home.send(token, "sales", "go"))["result"]["task"]
    again = await vouched(home, issuer)  # for the next five minutes
    assert [task["id"] for task in (await got(home, again, "/api/tasks"))["items"]] == [begun["id"]]
    assert (await home.send_get(again, "sales", begun["id"]))["result"]["id"] == begun["id"]
    assert len((await got(home, person(home, issuer), "/api/tasks"))["items"]) == 2  # she sees both


async def test_it_takes_no_part_in_the_persons_conversations(home: House, issuer: FakeIssuer) -> None:  # attack TEN-01
    own = (await home.send(person(home, issuer), "sales", "between us"))["result"]["task"]
    token = await vouched(home, issuer)
    refused = await home.send(token, "sales", "and what then?", taskId=own["id"])
    assert refused["error"]["code"] == -32001
    keyed = {"Idempotency-Key": "one", "A2A-Version": "1.0"}
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "the same"}]}
    hers, its = [
        (await home.rpc("/agents/sales", each, "SendMessage", {"message": message}, **keyed)).json()["result"]["task"]["id"]
        for each in (person(home, issuer), token)
    ]
    assert hers != its


async def test_it_sees_what_it_asked_people_for_and_no_other_approval_or_decision(home: House, issuer: FakeIssuer) -> None:
    await home.server("inventory", "reserve", "drop")  # attack TEN-01
    own = (await home.call(person(home, issuer), "/mcp", "inventory_drop", {})).json()["error"]["data"]
    token = await vouched(home, issuer)
    assert (await got(home, token, "/api/approvals"))["items"] == []
    foreign, unknown = [await got(home, token, f"/api/approvals/{each}") for each in (own["approval"]["id"], "ap_nobodys")]
    assert foreign == unknown
    assert "chain" not in await got(home, token, f"/api/decisions/{own['decision_id']}")
    asked = (await home.call(token, "/mcp", "inventory_drop", {})).json()["error"]["data"]
    again = await vouched(home, issuer)
    for each in (token, again):
        assert [one["id"] for one in (await got(home, each, "/api/approvals"))["items"]] == [asked["approval"]["id"]]


async def test_what_people_allowed_it_is_done_once_with_a_later_token_too(home: House, issuer: FakeIssuer) -> None:  # attack DLG-13
    inventory = await home.server("inventory", "reserve", "drop")
    asked = (await home.call(await vouched(home, issuer), "/mcp", "inventory_drop", {})).json()["error"]["data"]
    boss = {"authorization": f"Bearer {person(home, issuer, 'carol')}"}
    voted = await home.http.post(f"/api/approvals/{asked['approval']['id']}/decision", json={"decision": "approve"}, headers=boss)
    assert voted.status_code == 200
    assert "error" in (await home.call(person(home, issuer), "/mcp", "inventory_drop", {})).json()  # it was for the agent
    later = await vouched(home, issuer)
    assert "result" in (await home.call(later, "/mcp", "inventory_drop", {})).json()
    assert (await home.call(later, "/mcp", "inventory_drop", {})).json()["error"]["data"]["reason_id"] == "approval-needed"
    assert [name for name, _ in inventory.calls] == ["drop"]


async def test_its_totals_add_up(home: House, issuer: FakeIssuer) -> None:
    await home.server("inventory", "reserve", "drop")
    token = await vouched(home, issuer)
    told = [(await home.call(token, "/mcp", "inventory_reserve", {"amount": 60})).json() for _ in range(2)]
    assert ["result" in one for one in told] == [True, False]


async def test_what_it_saw_goes_with_it(home: House, issuer: FakeIssuer) -> None:  # attack INJ-02
    await home.server("records", "read")
    await home.agent(CallbackAgent("outside"))
    registry = home.gateway.registry
    await registry.update(replace(registry.find("default", "records"), sensitivity=3))
    await registry.update(replace(registry.find("default", "outside"), clearance=0))
    await home.gateway.database.refresh_epochs()
    token = await vouched(home, issuer)
    assert "result" in await home.send(token, "outside", "hello")
    assert "result" in (await home.call(token, "/mcp", "records_read", {})).json()
    assert "taint" in str((await home.send(token, "outside", "the customers are …"))["error"])


async def stop(home: House, name: str) -> None:
    headers = {"authorization": f"Bearer {home.token('admin')}"}
    assert (await home.http.post("/api/kill", json={"kind": "agent", "name": name}, headers=headers)).status_code == 201


async def test_an_agent_that_was_stopped_is_let_in_nowhere(home: House, issuer: FakeIssuer) -> None:
    token = await vouched(home, issuer)
    headers = {"authorization": f"Bearer {token}"}
    assert (await home.http.get("/api/tasks", headers=headers)).status_code == 200
    await stop(home, "desk")
    assert (await home.http.get("/api/tasks", headers=headers)).status_code == 403


async def test_what_a_stopped_agent_left_waiting_keeps_nobody_waiting(home: House, issuer: FakeIssuer) -> None:
    token, alice = await vouched(home, issuer), person(home, issuer)
    waiting = [(await home.send(each, "offers", "an offer"))["result"]["task"]["id"] for each in (token, alice)]
    await stop(home, "desk")
    boss = {"authorization": f"Bearer {person(home, issuer, 'carol')}"}
    items = {one["task_id"]: one["id"] for one in (await home.http.get("/api/approvals", headers=boss)).json()["items"]}
    for task in waiting:
        answer = await home.http.post(f"/api/approvals/{items[task]}/decision", json={"decision": "approve"}, headers=boss)
        assert answer.status_code == 200, answer.text

    async def state(task: str) -> str:
        return str((await home.send_get(alice, "offers", task))["result"]["status"]["state"])

    async def over() -> bool:
        return [await state(task) for task in waiting] == ["TASK_STATE_REJECTED", "TASK_STATE_COMPLETED"]

    await until(over, every=0.02)


async def test_what_would_be_ruled_without_a_task_is_not_believed_of_one(home: House, issuer: FakeIssuer) -> None:
    await home.server("inventory", "check")
    token = await vouched(home, issuer)
    subject = {"type": "user", "id": f"default|{issuer.url}|alice", "properties": {"roles": ["sales"]}}
    resource, context = {"type": "tool", "id": "inventory.check"}, {"scopes": ["*"], "chain": ["desk"], "arguments": {}}
    asked = {"subject": subject, "action": {"name": "callTool"}, "resource": resource, "context": context}
    admin = {"authorization": f"Bearer {home.token('admin')}"}
    supposed = (await home.http.post("/access/v1/evaluation", json=asked, headers=admin)).json()
    assert supposed["decision"] is True, supposed
    refused = (await home.call(token, "/mcp", "inventory_check", {})).json()["error"]["data"]
    assert (refused["reason_id"], refused["policies"]) == ("policy-forbids", ["busy"])
