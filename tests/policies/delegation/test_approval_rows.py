"""Approvals as rows: found by those they are about, and used once while they are good."""

import json
from typing import Any

import pytest

from gateway.storage.database import Database
from policies.delegation.approval import Approval, Requester
from policies.delegation.approval_rows import MATCHED_MAX, ApprovalGone, find, find_matching, mark_used, write_pending
from policies.delegation.rulings import Decision, act_of_calling_tool
from policies.tables import approval_votes, approvals

ALICE = "acme|idp|alice"


def row(approval_id: str = "ap_1", **changes: Any) -> dict[str, Any]:
    asked = {
        "tenant": "acme",
        "id": approval_id,
        "owner": ALICE,
        "txn": "x1",
        "task_id": "t1",
        "decision_id": "d1",
        "act": json.dumps({"permission": "tool:crm.refund"}),
        "chain": json.dumps(["support", "sales"]),
        "definition": "def",
        "arguments_hash": "hash",
        "arguments": "{}",
        "described": "",
        "policies": json.dumps(["large"]),
        "prompt": "May it?",
        "needed": 2,
        "created": 1,
        "expires": 1000,
    }
    return asked | changes


async def kept(database: Database, *rows: dict[str, Any]) -> None:
    await database.write(lambda batch: [write_pending(batch, each) for each in rows])


async def found(database: Database, approval_id: str = "ap_1", tenant: str = "acme") -> Approval | None:
    return await database.read(lambda connection: find(connection, tenant, approval_id))


async def ids(database: Database, tenant: str = "acme", owner: str = ALICE, arguments_hash: str = "hash") -> list[str]:
    return [one.id for one in await database.read(lambda connection: find_matching(connection, tenant, owner, arguments_hash))]


async def voted(database: Database, *votes: tuple[str, str, int]) -> None:
    made = [
        {"tenant": "acme", "approval_id": "ap_1", "voter": who, "verdict": verdict, "reason": "", "at": at} for who, verdict, at in votes
    ]
    await database.write(lambda batch: [batch.add(approval_votes, each) for each in made])


async def test_an_approval_is_read_as_it_was_asked_for(database: Database) -> None:
    await kept(database, row())
    errand = Requester("acme", ALICE, ("support", "sales"), "x1", "t1")
    assert await found(database) == Approval(
        "ap_1", errand, "tool:crm.refund", "def", "hash", ("large",), "pending", 1000, "May it?", "", 2, ()
    )
    kept_row = await database.read(lambda connection: connection.execute(approvals.select()).one())
    assert (kept_row.errand, kept_row.grant_id, kept_row.used_by, kept_row.closed) == ("{}", "", "", None)
    assert await found(database, "ap_2") is None and await found(database, tenant="evil") is None


async def test_those_who_approved_are_told_in_their_order_and_no_others(database: Database) -> None:
    await kept(database, row(), row("ap_2"))
    await voted(database, ("bob", "approve", 3), ("carol", "deny", 1), ("dan", "approve", 2))
    for approval_id, approvers in (("ap_1", ("dan", "bob")), ("ap_2", ())):
        approval = await found(database, approval_id)
        assert approval and approval.approvers == approvers


async def test_a_person_finds_their_own_for_the_same_arguments_the_newest_first(database: Database) -> None:
    await kept(
        database,
        row("ap_1", created=5),
        row("ap_2", created=7),
        row("ap_4", created=6),
        row("ap_3", created=6),
        row("ap_5", owner="acme|idp|bob"),
        row("ap_6", arguments_hash="other"),
        row("ap_7", grant_id="g1"),  # of a task that is kept: it goes on by itself
        row("ap_8", tenant="evil"),
    )
    assert await ids(database) == ["ap_2", "ap_4", "ap_3", "ap_1"]
    assert await ids(database, owner="acme|idp|bob") == ["ap_5"]
    assert await ids(database, tenant="evil") == ["ap_8"]
    assert await ids(database, arguments_hash="none") == []


async def test_so_many_of_the_same_are_looked_at_and_no_more(database: Database) -> None:
    await kept(database, *(row(f"ap_{number:03}", created=number) for number in range(MATCHED_MAX + 1)))
    assert await ids(database) == [f"ap_{number:03}" for number in range(MATCHED_MAX, 0, -1)]


async def used(database: Database, now: int = 999, tenant: str = "acme", approval_id: str = "ap_1") -> None:
    decision = Decision("d2", now, True, "allowed", ALICE, (), (), act_of_calling_tool("crm", "refund"), approval=approval_id)
    await database.write(lambda batch: mark_used(batch, tenant, decision))


async def test_an_approval_is_used_once_by_the_decision_that_names_it(database: Database) -> None:
    await kept(database, row(state="approved"), row("ap_2", state="approved"))
    await used(database)
    one, other = await database.read(lambda connection: connection.execute(approvals.select().order_by(approvals.c.id)).all())
    assert (one.state, one.used_by, one.closed) == ("used", "d2", 999)
    assert (other.state, other.used_by, other.closed) == ("approved", "", None)
    with pytest.raises(ApprovalGone):
        await used(database)


async def test_what_is_not_approved_or_over_or_anothers_is_not_used(database: Database) -> None:
    states = ("pending", "denied", "expired", "void", "used")
    await kept(database, row(state="approved"), *(row(f"ap_{state}", state=state) for state in states))
    every = [{"approval_id": f"ap_{state}"} for state in states]
    calls: list[dict[str, Any]] = [*every, {"now": 1000}, {"tenant": "evil"}, {"approval_id": "ap_2"}]
    for given in calls:
        with pytest.raises(ApprovalGone):
            await used(database, **given)
    rows = await database.read(lambda connection: connection.execute(approvals.select()).all())
    assert {each.used_by for each in rows} == {""}
    await used(database)
