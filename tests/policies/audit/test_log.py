"""Claims about the chain of the audit: what a record says, how it follows the one before, and how it goes on after a broken commit."""

import hashlib
import json

import pytest
from sqlalchemy import Connection, Engine, delete

from gateway.storage.database import engine_for
from policies.audit.log import AuditLog, ChainHead, decision_record, read_last_heads
from policies.delegation.chain import Principal
from policies.delegation.rulings import Act, ChainLink, Decision
from policies.tables import audit_records as audit_table
from tests.fakes.trail import Row, Rows, chain_of, genesis, last, record

NOW = 1_700_000_000_000_000
ALICE = Principal("acme", "https://idp", "alice")
LINKS = (ChainLink("sales", ("tool:*",)), ChainLink("stock", ("tool:inventory.*", "agent:x")))
ACT = Act("callTool", "Tool", "inventory.reserve", "tool:inventory.reserve", "inventory")
DENIED = Decision(
    "d_1", 5, False, "user-lacks-permission", "acme|https://idp|alice", ("support",), LINKS, ACT,
    ("p1", "p2"), ("tool:inventory.reserve (user)",),
    "g_1", "t_1", "x_1", "trace", "digest", "v7",
)  # fmt: skip
SHOWN = {
    "kind": "decision",
    "at": 5,
    "tenant": "acme",
    "decision_id": "d_1",
    "txn": "x_1",
    "task_id": "t_1",
    "grant_id": "g_1",
    "principal": {"issuer": "https://idp", "subject": "alice"},
    "roles": ("support",),
    "path": [
        {"agent": "sales", "permissions": ("tool:*",)},
        {"agent": "stock", "permissions": ("tool:inventory.*", "agent:x")},
    ],
    "action": "callTool",
    "resource": "inventory.reserve",
    "permission": "tool:inventory.reserve",
    "allowed": False,
    "reason_id": "user-lacks-permission",
    "policies": ("p1", "p2"),
    "missing": ("tool:inventory.reserve (user)",),
    "arguments": "digest",
    "policy_version": "v7",
    "trace_id": "trace",
}


def test_the_record_of_a_ruling_tells_who_through_whom_what_and_why() -> None:
    assert decision_record(DENIED, ALICE) == SHOWN


@pytest.mark.parametrize(
    ("given", "more"),
    [
        ({"act": Act("manage", "Approval", "a_1", "approvals", "a_1", "remove")}, {"verb": "remove"}),
        ({"scope": ("tool:*",)}, {"scope": ("tool:*",)}),
        ({"approval": "q_1"}, {"approval": "q_1", "approvers": ()}),
        ({"approval": "q_1", "approvers": ("acme|i|bob",)}, {"approval": "q_1", "approvers": ("acme|i|bob",)}),
        ({"approvers": ("acme|i|bob",)}, {}),
    ],
)
def test_a_record_tells_of_a_verb_a_scope_and_an_approval_where_there_is_one(given: Row, more: Row) -> None:
    parts = {name: getattr(DENIED, name) for name in DENIED.__struct_fields__}
    shown = decision_record(Decision(**{**parts, **given}), ALICE)
    same = {name: value for name, value in SHOWN.items() if name not in ("action", "resource", "permission")}
    assert {name: value for name, value in shown.items() if name not in ("action", "resource", "permission")} == {**same, **more}


def test_each_record_continues_the_one_before_it() -> None:
    rows, audit = Rows(), AuditLog("a_1", lambda: NOW)
    audit.record(rows, record(1))
    audit.record(rows, record(2, 7))
    first, second = rows.rows
    assert {name: first[name] for name in ("chain", "seq", "tenant", "kind", "at", "decision_id", "txn", "prev")} == {
        "chain": "a_1", "seq": 1, "tenant": "default", "kind": "decision", "at": NOW, "decision_id": "d_1", "txn": "x_1", "prev": "0" * 64,
    }  # fmt: skip
    assert (second["seq"], second["at"], second["decision_id"], second["prev"]) == (2, 7, "d_2", first["hash"])
    for row in rows.rows:
        assert row["hash"] == hashlib.sha256((row["prev"] + row["body"]).encode()).hexdigest()
    assert json.loads(first["body"]) == {"chain": "a_1", "seq": 1, **record(1), "at": NOW}
    assert json.loads(second["body"]) == {"chain": "a_1", "seq": 2, **record(2), "at": 7}
    assert {table.name for table in rows.tables} == {"audit"}


def test_what_is_durable_is_the_head() -> None:
    rows, audit = Rows(), AuditLog("a_1", lambda: NOW)
    assert audit.head == ChainHead("a_1", 0, "0" * 64)
    audit.record(rows, record(1))
    assert audit.head.seq == 0
    audit.on_commit()
    assert audit.head == last(rows.rows)


def test_a_rolled_back_record_leaves_no_gap() -> None:
    rows, audit = Rows(), AuditLog("a_1", lambda: NOW)
    audit.record(rows, record(1))
    audit.on_commit()
    audit.record(rows, record(2))
    audit.on_rollback()
    audit.record(rows, record(3))
    first, lost, second = rows.rows
    assert (lost["seq"], second["seq"], second["prev"]) == (2, 2, first["hash"])


def put(connection: Connection, rows: list[Row]) -> None:
    connection.execute(audit_table.insert(), rows)


def test_a_chain_begins_with_the_heads_of_all_before_it(connection: Connection) -> None:
    before = [chain_of(3, "a_1"), chain_of(1, "a_2")]
    for rows in before:
        put(connection, rows)
    batch, audit = Rows(), AuditLog("a_3", lambda: NOW)
    audit.begin_chain(connection, batch)
    (begun,) = batch.rows
    heads = [{"chain": rows[-1]["chain"], "seq": rows[-1]["seq"], "hash": rows[-1]["hash"]} for rows in before]
    assert json.loads(begun["body"]) == {"chain": "a_3", "seq": 1, **genesis(*heads), "at": NOW}
    assert (begun["kind"], begun["tenant"], begun["decision_id"], begun["txn"]) == ("genesis", "", "", "")


class Broken:
    """A chain of one durable record, and two more whose commit broke."""

    def __init__(self, connection: Connection) -> None:
        self.rows, self.audit = Rows(), AuditLog("a_1", lambda: NOW)
        self.audit.record(self.rows, record(1))
        self.audit.on_commit()
        put(connection, self.rows.rows)
        put(connection, chain_of(9, "a_0"))  # of another process
        self.audit.record(self.rows, record(2))
        self.audit.record(self.rows, record(3))

    def next(self) -> Row:
        self.audit.record(self.rows, record(4))
        return self.rows.rows[-1]


def test_a_broken_commit_that_is_there_is_gone_on_from(connection: Connection) -> None:
    broken = Broken(connection)
    put(connection, broken.rows.rows[1:])
    assert broken.audit.resolve_uncertain_commit(connection) is True
    assert broken.audit.head == last(broken.rows.rows)
    assert (broken.next()["seq"], broken.rows.rows[-1]["prev"]) == (4, broken.rows.rows[2]["hash"])


def test_a_broken_commit_that_is_not_there_is_gone_on_without(connection: Connection) -> None:
    broken = Broken(connection)
    assert broken.audit.resolve_uncertain_commit(connection) is False
    assert broken.audit.head == last(broken.rows.rows[:1])
    assert (broken.next()["seq"], broken.rows.rows[-1]["prev"]) == (2, broken.rows.rows[0]["hash"])


def test_a_broken_commit_that_turns_up_later_is_gone_on_from(connection: Connection) -> None:
    broken = Broken(connection)
    assert not broken.audit.resolve_uncertain_commit(connection)
    broken.next()
    put(connection, broken.rows.rows[1:3])
    assert broken.audit.resolve_uncertain_commit(connection) is False  # what was asked for now is not there
    assert broken.audit.head == last(broken.rows.rows[:3])
    assert broken.next()["seq"] == 4


def test_what_broke_before_a_commit_that_was_kept_is_never_believed(connection: Connection) -> None:
    broken = Broken(connection)
    assert not broken.audit.resolve_uncertain_commit(connection)
    kept = broken.next()
    broken.audit.on_commit()
    put(connection, broken.rows.rows[1:3])
    assert broken.audit.resolve_uncertain_commit(connection) is False
    assert broken.audit.head == ChainHead("a_1", 2, kept["hash"])


def test_a_chain_whose_end_was_cut_off_goes_on_and_leaves_a_gap(connection: Connection) -> None:
    broken = Broken(connection)
    connection.execute(delete(audit_table).where(audit_table.c.chain == "a_1"))
    assert broken.audit.resolve_uncertain_commit(connection) is False
    assert broken.next()["seq"] == 2


def test_where_nothing_was_asked_nothing_is_there(connection: Connection) -> None:
    assert AuditLog("a_1", lambda: NOW).resolve_uncertain_commit(connection) is False
    rows = chain_of(2)
    put(connection, rows)
    audit = AuditLog("a_1", lambda: NOW)
    audit.record(Rows(), record(1))
    assert audit.resolve_uncertain_commit(connection) is False  # another's records are not ours, whatever their chain's name
    assert audit.head.seq == 0


def test_the_heads_of_all_chains_are_found_without_reading_them(database_url: str) -> None:
    engine = engine_for(database_url)
    assert _last_heads(engine) == []
    for name, count in (("a_2", 3), ("a_10", 1), ("a_1", 5), ("Z", 2)):
        rows = chain_of(count, name)
        with engine.begin() as connection:
            put(connection, rows)
        assert last(rows) in _last_heads(engine)
    assert sorted((head.chain, head.seq) for head in _last_heads(engine)) == [("Z", 2), ("a_1", 5), ("a_10", 1), ("a_2", 3)]
    engine.dispose()


def _last_heads(engine: Engine) -> list[ChainHead]:
    with engine.connect() as connection:
        return read_last_heads(connection.execution_options(interlock_read=True))
