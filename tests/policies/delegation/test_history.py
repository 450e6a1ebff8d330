"""The history of an errand in its rows: read as it was left, and left once by whoever read it last."""

import json
from typing import Any

import pytest

from gateway.storage.database import Database
from policies.delegation.history import (
    SENSITIVITY_MAX,
    VERB_CONTINUE,
    VERB_FOLLOW_TASK,
    VERB_STOP_TASK,
    History,
    HistoryChanged,
    HistoryMark,
    PriorAct,
    can_continue_from,
    keep_before_prune,
    read_history,
    read_totals,
    record_mark,
)
from policies.tables import audit_records, transaction_history
from registry.cards.card import CLEARANCE_MAX

ERRAND = ("acme", "x1")


async def left(database: Database, mark: HistoryMark, errand: tuple[str, str] = ERRAND, now: int = 7) -> None:
    await database.write(lambda batch: record_mark(batch, errand, mark, now))


async def seen(database: Database, tenant: str = "acme", txn: str = "x1") -> History:
    return await database.read(lambda connection: read_totals(connection, tenant, txn))


async def rows(database: Database) -> list[tuple[Any, ...]]:
    found = await database.read(
        lambda connection: connection.execute(transaction_history.select().order_by(transaction_history.c.txn)).all()
    )
    return [tuple(row) for row in found]


def test_policies_see_each_sum_that_they_name_and_all_else_there_is() -> None:
    history = History(4, 2, {"amount": 9, "old": 1}, {"tool:crm.find": 2}, ("tool:crm.find",))
    assert history.to_policy_context("tool:crm.find", ["amount", "seats"]) == {
        "approvals": ("tool:crm.find",),
        "calls": {"tool:crm.find": 2},
        "repeats": 2,
        "totals": {"amount": 9, "seats": 0},
        "taint": 2,
    }
    nothing = {"approvals": (), "calls": {}, "repeats": 0, "totals": {}, "taint": 0}
    assert History().to_policy_context("tool:crm.find", []) == nothing


def test_what_an_act_began_is_asked_for_as_if_the_act_itself_had_not_been() -> None:
    seen = History(4, 2, {"amount": 9, "seats": 1, "old": 1}, {"tool:crm.find": 2, "tool:crm.add": 1}, ("tool:crm.add",))
    given = {"amount": 4, "seats": 2, "old": True, "note": "9", "new": 3}
    before = seen.without_act("tool:crm.add", given)
    assert before == History(4, 2, {"amount": 5, "seats": 0, "old": 1}, {"tool:crm.find": 2}, ("tool:crm.add",))
    assert seen.without_act("tool:crm.find", {"amount": -1}).calls == {"tool:crm.find": 1, "tool:crm.add": 1}
    assert seen.without_act("tool:crm.find", {"amount": -1}).totals == seen.totals
    assert History().without_act("tool:crm.add", given) == History()  # of another errand
    for counted, totals in (((), (9, 1)), (("seats", "new"), (9, 0)), (("amount", "seats", "old"), (5, 0))):
        left = seen.without_act("tool:crm.add", given, counted)
        assert (left.totals["amount"], left.totals["seats"], left.totals["old"]) == (*totals, 1)
        assert left.calls == {"tool:crm.find": 2}


async def test_an_errand_goes_on_from_where_it_was_read(database: Database) -> None:
    assert await seen(database) == History() == History(-1, 0, {}, {}, ())
    await left(database, HistoryMark(-1, {"amount": 5}), now=7)
    assert await seen(database) == History(1, 0, {"amount": 5})
    await left(database, HistoryMark(1, {"amount": 8, "seats": 1}), now=8)
    assert await seen(database) == History(2, 0, {"amount": 8, "seats": 1})
    assert [(version, updated) for _, _, version, _, _, updated in await rows(database)] == [(2, 8)]
    assert await seen(database, txn="x2") == await seen(database, "evil") == History()


async def test_of_two_who_read_the_same_one_leaves_it(database: Database) -> None:
    await left(database, HistoryMark(-1, {"amount": 5}))
    for stale in (-1, 0, 2):
        with pytest.raises(HistoryChanged):
            await left(database, HistoryMark(stale, {"amount": 9}, taint=3))
    assert await seen(database) == History(1, 0, {"amount": 5})


async def test_what_an_errand_saw_only_grows_and_needs_nobody_to_have_read_it(database: Database) -> None:
    await left(database, HistoryMark())
    assert await rows(database) == []
    for taint, highest in ((2, 2), (1, 2), (3, 3), (0, 3)):
        await left(database, HistoryMark(taint=taint))
        assert await seen(database) == History(0, highest)
    await left(database, HistoryMark(0, {"amount": 1}, 1))
    assert await seen(database) == History(1, 3, {"amount": 1})
    await left(database, HistoryMark(-1, {"amount": 1}, 1), ("acme", "x2"))
    assert await seen(database, txn="x2") == History(1, 1, {"amount": 1})


def record(seq: int, tenant: str, txn: str, kind: str, **body: Any) -> dict[str, Any]:
    text = json.dumps({"allowed": True, "permission": "tool:crm.find", **body})
    where = {"chain": "c", "seq": seq, "tenant": tenant, "txn": txn, "kind": kind}
    return where | {"at": 0, "decision_id": f"d{seq}", "body": text, "prev": "", "hash": ""}


async def test_what_was_allowed_before_is_counted_and_nothing_else(database: Database) -> None:
    told = [
        ("acme", "x1", "decision", {}),
        ("acme", "x1", "decision", {}),
        ("acme", "x1", "decision", {"permission": "tool:crm.refund", "approval": "ap_2"}),
        ("acme", "x1", "decision", {"permission": "tool:crm.delete", "approval": "ap_1"}),
        ("acme", "x1", "decision", {"permission": "tool:crm.drop", "approval": "ap_3", "allowed": False}),
        ("acme", "x1", "decision", {"verb": VERB_FOLLOW_TASK}),
        ("acme", "x1", "decision", {"verb": VERB_STOP_TASK}),
        ("acme", "x1", "decision", {"verb": "go-on-with", "permission": "tool:crm.sum"}),
        ("acme", "x1", "decision", {"verb": VERB_CONTINUE, "permission": "tool:crm.split", "approval": "ap_4"}),
        ("acme", "x1", "outcome", {}),
        ("acme", "x2", "decision", {}),
        ("evil", "x1", "decision", {}),
    ]
    made = [record(seq, tenant, txn, kind, **body) for seq, (tenant, txn, kind, body) in enumerate(told)]
    await database.write(lambda batch: [batch.add(audit_records, row) for row in made])
    await left(database, HistoryMark(-1, {"amount": 5}, 2))
    found = await database.read(lambda connection: read_history(connection, "acme", "x1"))
    assert found.calls == {"tool:crm.find": 2, "tool:crm.refund": 1, "tool:crm.delete": 1}
    assert found.approvals == ("tool:crm.delete", "tool:crm.refund", "tool:crm.split")
    assert (found.version, found.taint, found.totals) == (1, 2, {"amount": 5})
    assert await database.read(lambda connection: read_history(connection, "acme", "x9")) == History()


STEP = PriorAct("d1", "tool:crm.find", "a1", "v1")
ASKED = {"decision_id": "d1", "arguments": "a1", "policy_version": "v1"}


@pytest.mark.parametrize(
    ("told", "open_"),
    [
        ([ASKED], True),
        ([], False),
        ([ASKED | {"allowed": False}], False),
        ([ASKED | {"permission": "tool:crm.other"}], False),
        ([ASKED | {"arguments": "a2"}], False),
        ([ASKED | {"policy_version": "v2"}], False),
        ([ASKED | {"verb": VERB_FOLLOW_TASK}], False),
        ([ASKED, {"decision_id": "d2", "verb": VERB_CONTINUE, "goes_on": "d1"}], False),
        ([ASKED, {"decision_id": "d2", "verb": VERB_CONTINUE, "goes_on": "d1", "allowed": False}], True),
        ([ASKED | {"verb": VERB_CONTINUE, "goes_on": "d0"}], True),
        ([ASKED, {"decision_id": "d2", "goes_on": "d3"}], True),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_act_goes_on_once_from_one_that_was_allowed_and_counted(database: Database, told: list[Any], open_: bool) -> None:
    """attack DLG-13"""
    made = [record(seq, "acme", "x1", "decision", **body) for seq, body in enumerate(told)]
    await database.write(lambda batch: [batch.add(audit_records, row) for row in made])
    assert await database.read(lambda connection: can_continue_from(connection, "acme", "x1", STEP)) is open_
    for tenant, txn in (("evil", "x1"), ("acme", "x2")):
        assert not await database.read(lambda connection, of=(tenant, txn): can_continue_from(connection, *of, STEP))


def decided(txn: str, **told: Any) -> tuple[str, str, str]:
    return "acme", txn, json.dumps({"allowed": True, "permission": "tool:crm.find", **told})


async def test_what_the_audit_will_not_tell_any_more_is_counted_on_and_moves_the_errand(database: Database) -> None:
    await left(database, HistoryMark(-1, {"amount": 5}, 2), now=7)
    approved = {"permission": "tool:crm.refund", "approval": "ap_2"}
    for version, (at, going) in enumerate([(8, [decided("x1"), decided("x1", allowed=False)]), (9, [decided("x1", **approved)])], 2):
        await database.write(lambda batch, going=going, at=at: keep_before_prune(batch.connection, going, at))
        assert (await seen(database)).version == version
    with pytest.raises(HistoryChanged):
        await left(database, HistoryMark(1, {"amount": 6}))
    found = await database.read(lambda connection: read_history(connection, "acme", "x1"))
    assert (found.calls, found.approvals) == ({"tool:crm.find": 1, "tool:crm.refund": 1}, ("tool:crm.refund",))
    assert (found.totals["amount"], found.taint) == (5, 2)


async def test_pruning_gives_each_transaction_a_history_row_and_other_records_none(database: Database) -> None:
    going = [decided("x2"), decided(""), decided("x3", allowed=False), decided("x4", permission=""), decided("x1")]
    await database.write(lambda batch: keep_before_prune(batch.connection, going, 9))
    assert [(txn, version, taint, updated) for _, txn, version, taint, _, updated in await rows(database)] == [
        ("x1", 1, 0, 9),
        ("x2", 1, 0, 9),
    ]
    assert await seen(database, "evil", "x2") == History()
    await left(database, HistoryMark(1, {"amount": 6}), ("acme", "x2"))


def test_nothing_is_more_sensitive_than_an_operator_can_clear_somebody_for() -> None:
    assert SENSITIVITY_MAX == CLEARANCE_MAX
