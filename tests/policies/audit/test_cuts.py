"""Old records that go, and what shows of the rest that nothing else went."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, event, func, select

from gateway.storage.database import engine_for
from policies.audit.cuts import CUT_JWT_TYPE as CUT
from policies.audit.cuts import AuditCut, delete_records, find_due_cuts, parse_cut_statements, read_records
from policies.audit.heads import HeadsFile, read_heads
from policies.audit.proof import Proof, read_rows, verify_chains
from policies.delegation.history import read_history
from policies.delegation.terms import Terms
from policies.keys.published import PublishedKeys
from policies.keys.signing import SigningKeys
from policies.tables import audit_records as audit_table
from policies.tables import refusals, transaction_history
from tests.fakes.trail import Plain, Row, chain_of, cut_at, head_of, last, record


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SigningKeys:
    return SigningKeys.open(tmp_path_factory.mktemp("home"))


@pytest.fixture
def stored(database_url: str) -> Iterator[Connection]:
    engine = engine_for(database_url)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def test_what_is_older_goes_and_the_rest_is_sound(stored: Connection, keys: SigningKeys) -> None:
    """attack LOG-04: retention with provable cuts"""
    old, young, over = chain_of(30), chain_of(30, "a_2", 1000), chain_of(4, "a_3", 5)
    stored.execute(audit_table.insert(), [*old, *young, *over])
    stored.commit()
    cuts = find_due_cuts(stored, 1010)
    assert [(cut.chain, cut.seq, cut.records) for cut in cuts] == [("a_1", 29, 29), ("a_2", 9, 9), ("a_3", 3, 3)]
    kept = [list(read_records(stored, cut)) for cut in cuts]
    heads = [head_of(keys, rows[-1]) for rows in (old, young, over)]
    signed = [*heads, *(keys.sign(cut.claims(2000), CUT) for cut in cuts)]
    assert [delete_records(stored, cut) for cut in cuts] == [29, 9, 3]
    rest = list(read_rows(stored))
    assert len(rest) == 23
    proof = verify_chains(rest, signed, keys)
    assert proof.is_sound and (proof.records, proof.chains, proof.cuts) == (23, 3, 3), proof.flaws
    assert not verify_chains(rest, heads, keys).is_sound  # without its statement a cut is a cut
    for cut, archived in zip(cuts, kept, strict=True):  # whoever kept what went can show that it is that
        assert archived[-1]["hash"] == cut.hash and verify_chains(archived, [head_of(keys, archived[-1])], keys).is_sound
    assert find_due_cuts(stored, 1010) == []


def test_a_second_cut_goes_on_from_the_first(stored: Connection, keys: SigningKeys) -> None:
    rows = chain_of(20)
    stored.execute(audit_table.insert(), rows)
    stored.commit()
    signed = [head_of(keys, rows[-1])]
    for before in (5, 15):
        (cut,) = find_due_cuts(stored, before)
        signed.append(keys.sign(cut.claims(100), CUT))
        delete_records(stored, cut)
        assert verify_chains(list(read_rows(stored)), signed, keys).is_sound
    assert [row["seq"] for row in read_rows(stored)] == list(range(15, 21))


def test_a_cut_that_was_interrupted_is_sound_and_is_ended_by_the_next(stored: Connection, keys: SigningKeys) -> None:
    rows = chain_of(20)
    stored.execute(audit_table.insert(), rows[7:])
    stored.commit()
    signed = [head_of(keys, rows[-1]), cut_at(keys, rows, 12)]
    assert verify_chains(list(read_rows(stored)), signed, keys).is_sound
    (cut,) = find_due_cuts(stored, 13)
    assert (cut.seq, delete_records(stored, cut)) == (12, 5)
    assert verify_chains(list(read_rows(stored)), signed, keys).is_sound


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_other_cut_edit_or_reordering_is_found(data: st.DataObject) -> None:
    """attack LOG-04: after an honest cut, by somebody who can write the database and holds every honest statement"""
    keys = Plain()
    length = data.draw(st.integers(4, 12), "length")
    honest = data.draw(st.integers(1, length - 2), "cut")
    rows = chain_of(length)
    rest = [dict(row) for row in rows[honest:]]
    signed = [head_of(keys, rows[-1]), cut_at(keys, rows, honest)]
    assert verify_chains(rest, signed, keys).is_sound
    match data.draw(st.sampled_from(["delete", "edit", "swap", "rehash", "first"]), "how"):
        case "delete":
            del rest[data.draw(st.integers(0, len(rest) - 1))]
        case "first":
            del rest[: data.draw(st.integers(1, len(rest)))]
        case "edit":
            row = data.draw(st.sampled_from(rest))
            row["body"] = str(row["body"]).replace("default", "another")
        case "rehash":  # the whole rest, made anew from the cut on
            prev, fresh = rows[honest - 1]["hash"], []
            for row in rest:
                body = str(row["body"]).replace("default", "another")
                digest = hashlib.sha256(prev.encode() + body.encode()).hexdigest()
                fresh.append({**row, "tenant": "another", "body": body, "prev": prev, "hash": digest})
                prev = digest
            rest = fresh
        case _:
            one, other = data.draw(st.lists(st.integers(0, len(rest) - 1), min_size=2, max_size=2, unique=True))
            rest[one], rest[other] = rest[other], rest[one]
    assert not verify_chains(rest, signed, keys).is_sound


def test_a_cut_by_another_key_is_a_flaw(keys: SigningKeys, tmp_path: Path) -> None:
    rows, foreign = chain_of(10), SigningKeys.open(tmp_path)
    proof: Proof = verify_chains(rows[5:], [head_of(keys, rows[-1]), cut_at(foreign, rows, 5)], keys)
    assert len(proof.flaws) >= 2


def test_a_chain_in_anothers_place_is_found(keys: SigningKeys) -> None:
    """attack LOG-04: a swapped chain"""
    one, other = chain_of(5), chain_of(5, "a_2", 50)
    signed = [head_of(keys, one[-1]), head_of(keys, other[-1])]
    assert verify_chains([*one, *other], signed, keys).is_sound
    swapped = [{**row, "chain": "a_2"} for row in one] + [{**row, "chain": "a_1"} for row in other]
    assert not verify_chains(swapped, signed, keys).is_sound


def put(stored: Connection, *chains: list[Row]) -> None:
    for rows in chains:
        stored.execute(audit_table.insert(), rows)
    stored.commit()


def test_a_statement_tells_what_went_of_which_chain() -> None:
    cut = AuditCut("a_1", 9, "f" * 64, 4, 100, 200)
    assert cut.claims(300) == {
        "chain": "a_1", "seq": 9, "hash": "f" * 64, "records": 4, "first_at": 100, "last_at": 200, "at": 300,
    }  # fmt: skip


def test_what_is_of_that_very_moment_stays(connection: Connection) -> None:
    rows = chain_of(5)  # at 1, 2, 3, 4 and 5
    put(connection, rows)
    assert find_due_cuts(connection, 1) == []
    assert find_due_cuts(connection, 3) == [AuditCut("a_1", 2, rows[1]["hash"], 2, 1, 2)]
    assert (
        find_due_cuts(connection, 5) == find_due_cuts(connection, 100) == [AuditCut("a_1", 4, rows[3]["hash"], 4, 1, 4)]
    )  # the last one stays whatever its age


def test_a_chain_of_one_record_stays_and_so_does_an_empty_trail(connection: Connection) -> None:
    assert find_due_cuts(connection, 100) == []
    put(connection, chain_of(1))
    assert find_due_cuts(connection, 100) == []


def test_what_stands_after_a_younger_record_stays(connection: Connection) -> None:
    """A clock that was set back: records go from the first on, without a hole."""
    rows = chain_of([record(0, 7), record(1, 3), record(2, 90), record(3, 4), record(4, 5)])
    put(connection, rows)
    assert find_due_cuts(connection, 50) == [AuditCut("a_1", 2, rows[1]["hash"], 2, 3, 7)]


def test_each_chain_is_cut_by_itself(connection: Connection) -> None:
    one, other = chain_of(4, "a_2"), chain_of(6, "a_1", 2)
    put(connection, one, other)
    cuts = find_due_cuts(connection, 5)
    assert cuts == [AuditCut("a_1", 2, other[1]["hash"], 2, 3, 4), AuditCut("a_2", 3, one[2]["hash"], 3, 1, 3)]
    assert [list(read_records(connection, cut)) for cut in cuts] == [other[:2], one[:3]]


def test_records_go_in_transactions_of_their_own_the_oldest_first(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.audit.cuts.DELETE_BATCH_SIZE", 3)
    rows, other = chain_of(9), chain_of(9, "a_2")
    put(connection, rows, other)
    left: list[list[int]] = []
    event.listen(
        connection.engine, "commit", lambda stored: left.append([row["seq"] for row in read_rows(stored) if row["chain"] == "a_1"])
    )
    assert delete_records(connection, AuditCut("a_1", 8, rows[7]["hash"], 8, 1, 8)) == 8
    assert left == [[4, 5, 6, 7, 8, 9], [7, 8, 9], [9]]
    connection.rollback()  # nothing of it is undone by what comes after
    assert list(read_rows(connection)) == [rows[8], *other]
    assert delete_records(connection, AuditCut("a_1", 8, rows[7]["hash"], 8, 1, 8)) == 0


def test_statements_are_told_from_all_else_that_is_signed() -> None:
    keys, rows, other = Plain(), chain_of(9), chain_of(9, "a_2")
    head = head_of(keys, rows[-1])
    cuts = [cut_at(keys, rows, 3), cut_at(keys, rows, 5), cut_at(keys, other, 2)]
    assert parse_cut_statements([cuts[0], head, "nonsense", *cuts[1:]], keys) == (
        [head, "nonsense"],
        {"a_1": {3: rows[2]["hash"], 5: rows[4]["hash"]}, "a_2": {2: other[1]["hash"]}},
    )
    assert parse_cut_statements([], keys) == ([], {})


def test_heads_of_what_went_are_no_flaw_and_still_prove_the_rest(connection: Connection, keys: SigningKeys, tmp_path: Path) -> None:
    """The file has many heads of a chain until it is compacted, and copies of it are kept for ever."""
    rows = chain_of(8)
    put(connection, rows)
    file = HeadsFile(tmp_path / "audit.heads", keys, lambda: 1)
    for length in (2, 3, 5, 8):
        file.write_head(last(rows[:length]))
    (cut,) = find_due_cuts(connection, 5)
    file.write_statement(cut.claims(9), "interlock-audit-cut+jwt")
    delete_records(connection, cut)
    rest = list(read_rows(connection))
    proof = verify_chains(rest, read_heads(tmp_path / "audit.heads"), keys)
    assert (proof.flaws, proof.heads, proof.unwitnessed) == ([], 4, 0)
    assert not verify_chains(rest[:3], read_heads(tmp_path / "audit.heads"), keys).is_sound


def test_public_keys_alone_prove_it(keys: SigningKeys, tmp_path: Path) -> None:
    rows = chain_of(10)
    signed = [head_of(keys, rows[-1])]
    keys.rotate()
    published = PublishedKeys(json.loads(json.dumps(keys.all_jwks())))
    assert verify_chains(rows, signed, published).is_sound
    assert not any("d" in key for key in keys.all_jwks()["keys"])
    foreign = PublishedKeys(SigningKeys.open(tmp_path).all_jwks())
    assert not verify_chains(rows, signed, foreign).is_sound


def test_refusals_go_with_the_records_of_their_decisions(stored: Connection) -> None:
    rows = chain_of(30)
    texts = {"tenant": "default", "owner": "default|i|alice", "hidden": 0}
    stored.execute(audit_table.insert(), rows)
    stored.execute(refusals.insert(), [{**texts, "at": row["at"], "decision_id": row["decision_id"]} for row in rows])
    (cut,) = find_due_cuts(stored, rows[20]["at"])
    delete_records(stored, cut)
    assert stored.execute(select(refusals.c.decision_id)).scalars().all() == [row["decision_id"] for row in rows[20:]]


def test_refusals_of_other_chains_and_tenants_stay(stored: Connection) -> None:
    """A cut takes records of its own chain only, and another chain's last record stays however old it is."""
    cut_chain, other = chain_of(30, "a_1", 100), chain_of([{**record(90, 50), "tenant": "u"}, {**record(91, 51), "tenant": "u"}], "a_2")
    texts = {"owner": "o|i|alice", "hidden": 0}
    stored.execute(audit_table.insert(), [*cut_chain, *other])
    rows = [*cut_chain, *other, {"tenant": "u", "at": cut_chain[3]["at"], "decision_id": cut_chain[3]["decision_id"]}]
    told = [{**texts, **{name: row[name] for name in ("tenant", "at", "decision_id")}} for row in rows]
    stored.execute(refusals.insert(), told)
    cut = next(each for each in find_due_cuts(stored, cut_chain[20]["at"]) if each.chain == "a_1")
    delete_records(stored, cut)
    left = stored.execute(select(refusals.c.decision_id).where(refusals.c.tenant == "u").order_by(refusals.c.at)).scalars().all()
    assert left == ["d_90", "d_91", "d_3"] and stored.execute(select(func.count()).select_from(refusals)).scalar_one() == 13


def test_an_interrupted_deletion_leaves_the_refusals_of_the_records_that_are_left(
    stored: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.audit.cuts.DELETE_BATCH_SIZE", 5)
    rows = chain_of(30)
    texts = {"tenant": "default", "owner": "default|i|alice", "hidden": 0}
    stored.execute(audit_table.insert(), rows)
    stored.execute(refusals.insert(), [{**texts, "at": row["at"], "decision_id": row["decision_id"]} for row in rows])
    (cut,) = find_due_cuts(stored, rows[20]["at"])

    def commit_and_end() -> None:
        transaction = stored.get_transaction()
        assert transaction is not None
        transaction.commit()
        raise KeyboardInterrupt

    monkeypatch.setattr(stored, "commit", commit_and_end)
    with pytest.raises(KeyboardInterrupt):
        delete_records(stored, cut)
    left = stored.execute(select(audit_table.c.decision_id).order_by(audit_table.c.seq)).scalars().all()
    assert len(left) == 25 and stored.execute(select(refusals.c.decision_id)).scalars().all() == left


def done(number: int, txn: str, permission: str, **more: Any) -> Row:
    told = {"kind": "decision", "tenant": "default", "decision_id": f"d_{number}", "txn": txn, "permission": permission}
    return {"allowed": True, "principal": {"issuer": "i", "subject": "alice"}, **told, **more}


def test_what_errands_did_outlasts_the_records_that_told_of_it(stored: Connection) -> None:
    told = [
        *(done(number, "x_1", "tool:crm.find") for number in range(3)),
        done(3, "x_1", "tool:crm.refund", approval="ap_1"),
        done(4, "x_1", "tool:crm.drop", allowed=False, approval="ap_2"),
        done(5, "x_2", "agent:sales"),
        done(6, "x_2", "tool:crm.find", tenant="other"),
        done(7, "", "tool:crm.find"),
        done(8, "x_1", "tool:crm.find", kind="outcome"),
        done(9, "x_1", "tool:crm.find"),
        done(10, "x_1", "tool:crm.refund"),
    ]
    stored.execute(audit_table.insert(), chain_of({**each, "at": number + 1} for number, each in enumerate(told)))
    counted = {"tenant": "default", "txn": "x_1", "version": 4, "taint": 2, "totals": '{"amount": 70}', "updated": 1}
    stored.execute(transaction_history.insert().values(counted))
    stored.commit()
    before = {place: read_history(stored, *place) for place in (("default", "x_1"), ("default", "x_2"), ("other", "x_2"))}
    assert before["default", "x_1"].calls == {"tool:crm.find": 4, "tool:crm.refund": 2}
    for until in (2, 5, 11):
        for cut in find_due_cuts(stored, until):
            delete_records(stored, cut)
        for place, history in before.items():
            now = read_history(stored, *place)
            assert now.to_policy_context("tool:crm.find", ("amount",)) == history.to_policy_context("tool:crm.find", ("amount",))
    seen = read_history(stored, "default", "x_1")
    assert (seen.approvals, seen.taint, seen.version) == (("tool:crm.refund",), 2, 7)  # whoever ruled by it meanwhile rules again
    assert seen.calls == {"tool:crm.find": 4, "tool:crm.refund": 2}
    grown = Terms(history=seen).history_mark(True, ("amount",), {"amount": 30})
    assert (grown.totals["amount"], grown.totals["tool:crm.find"]) == (100, 4)
    assert stored.execute(select(func.count()).select_from(transaction_history)).scalar_one() == 3
