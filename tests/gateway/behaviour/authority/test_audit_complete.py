"""Every ruling is one record: at every door, allowed and refused, with what it was about."""

import hashlib
import json
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import select

from policies.tables import audit_records as audit_table
from tests.fakes.house import CallbackAgent, House
from tests.fakes.reception import Reception
from tests.fakes.reference_clients import EVERY_DOOR, client_of, sent


async def records(home: House, kind: str = "decision") -> list[dict[str, Any]]:
    query = select(audit_table.c.body).where(audit_table.c.kind == kind).order_by(audit_table.c.chain, audit_table.c.seq)
    rows = await home.gateway.database.read(lambda connection: connection.execute(query).all())
    return [json.loads(row.body) for row in rows]


async def made(home: House, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The decisions since then."""
    known = {record["decision_id"] for record in before}
    return [record for record in await records(home) if record["decision_id"] not in known]


async def one(home: House, before: list[dict[str, Any]], subject: str, permission: str, allowed: bool) -> dict[str, Any]:
    (record,) = await made(home, before)
    assert (record["principal"]["subject"], record["permission"], record["allowed"]) == (subject, permission, allowed), record
    assert record["decision_id"] and record["policy_version"] and record["reason_id"]
    assert (record["reason_id"] == "allowed") == allowed
    return record


# attack LOG-04
async def test_every_call_at_the_door_of_mcp_has_its_record(home: House) -> None:
    await home.server("inventory", "check", "reserve")
    arguments = {"sku": "SKU-7", "count": 2}
    expected = hashlib.sha256(b'{"count":2,"sku":"SKU-7"}').hexdigest()
    for place, prefix in (("/mcp", "inventory_"), ("/mcp/inventory", "")):
        for user, tool, allowed in (
            ("alice", "reserve", True),
            ("bob", "check", True),
            ("bob", "reserve", False),
            ("nora", "check", False),
        ):
            before = await records(home)
            await home.call(home.token(user), place, f"{prefix}{tool}", arguments)
            record = await one(home, before, user, f"tool:inventory.{tool}", allowed)
            assert record["arguments"] == expected and "SKU-7" not in json.dumps(record)


# attack LOG-04
async def test_every_message_has_its_record_with_its_chain(home: House) -> None:
    await home.server("inventory", "check", "reserve")

    async def act(token: str, _text: str) -> str:
        onward = await home.exchanged("sales", token, "/mcp/inventory", "tool:inventory.reserve")
        return (await home.call(onward, "/mcp/inventory", "reserve", {"sku": "SKU-7"})).text

    await home.agent(CallbackAgent("sales", act))
    before = await records(home)
    await home.send(home.token("alice"), "sales", "reserve it")
    found = await made(home, before)
    kinds = Counter((record["permission"], record["allowed"]) for record in found)
    assert kinds[("agent:sales", True)] == 1 and kinds[("tool:inventory.reserve", True)] == 1, kinds
    last = next(record for record in found if record["permission"] == "tool:inventory.reserve")
    assert [link["agent"] for link in last["path"]] == ["sales"] and last["grant_id"] and last["task_id"]
    assert len({record["txn"] for record in found}) == 1
    for user in ("nora",):
        before = await records(home)
        await home.send(home.token(user), "sales", "reserve it")
        await one(home, before, user, "agent:sales", False)


# attack LOG-04
@pytest.mark.parametrize("door", EVERY_DOOR)
async def test_every_message_has_one_record_at_every_door_of_a2a(every_home: House, door: str) -> None:
    home = every_home
    sales = await home.agent(CallbackAgent("sales"))
    before = await records(home)
    async with client_of(home, door) as client:
        assert (await sent(client, "hello")).id
    await one(home, before, "alice", "agent:sales", True)
    before = await records(home)
    async with client_of(home, door, "nora") as client:
        with pytest.raises(Exception, match=r"."):  # of each transport its own
            await sent(client, "hello")
    await one(home, before, "nora", "agent:sales", False)
    assert len(sales.requests) == 1


# attack LOG-04
async def test_every_call_of_an_agent_as_a_tool_has_one_record(home: House) -> None:
    sales = await home.agent(CallbackAgent("sales"))
    for user, tool, permission, allowed in (
        ("alice", "sales", "agent:sales", True),
        ("alice", "sales_quote", "agent:sales/quote", True),
        ("nora", "sales", "agent:sales", False),
        ("nora", "sales_quote", "agent:sales/quote", False),
    ):
        before = await records(home)
        answer = (await home.call(home.token(user), "/mcp", tool, {"message": "hello"})).json()
        assert ("result" in answer) == allowed, answer
        await one(home, before, user, permission, allowed)
    assert len(sales.requests) == 2


# attack LOG-04
async def test_every_act_of_administration_has_its_record(home: House) -> None:
    desk = Reception(home)
    await home.agent(CallbackAgent("sales"))
    for user, method, path, allowed in (
        ("admin", "GET", "/api/audit", True),
        ("nora", "GET", "/api/audit", False),
        ("admin", "POST", "/api/agents/sales/secret", True),
        ("alice", "POST", "/api/agents/sales/secret", False),
        ("admin", "DELETE", "/api/agents/sales", True),
    ):
        before = await records(home)
        await desk.ask(method, path, user)
        (record,) = await made(home, before)
        assert (record["principal"]["subject"], record["allowed"]) == (user, allowed), (path, record)


# attack LOG-04
async def test_an_effect_is_told_once_and_never_without_its_ruling(home: House) -> None:
    await home.server("inventory", "check", "reserve")
    for user in ("alice", "bob", "alice"):
        await home.call(home.token(user), "/mcp/inventory", "check", {})
    decisions = {record["decision_id"]: record for record in await records(home)}
    assert len(decisions) == len(await records(home)) == 3
    await home.gateway.database.write(lambda batch: None)  # what was posted before is kept with it
    outcomes = Counter(record["decision_id"] for record in await records(home, "outcome"))
    assert set(outcomes) <= set(decisions) and set(outcomes.values()) <= {1}
    assert len(outcomes) == 3
