"""Claims about the proof of the audit: an untouched trail is sound, and each thing that is wrong is found and named."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from policies.audit.heads import HEAD_JWT_TYPE
from policies.audit.proof import Flaw, Proof, read_rows, verify_chains
from policies.tables import audit_records as audit_table
from tests.fakes.trail import Plain, Row, chain_of, cut_at, genesis, head_of, record

GONE = "but it is gone"
OTHER = "has another hash"
EXPECTED = "was expected here"


@pytest.fixture
def keys() -> Plain:
    return Plain()


def proof_of(rows: list[Row], keys: Plain) -> Proof:
    """As if the first record of each chain had been witnessed when it was written."""
    firsts = {row["chain"]: row for row in rows if row["seq"] == 1}
    return verify_chains(rows, [head_of(keys, row) for row in firsts.values()], keys)


def problems(proof: Proof) -> list[tuple[str, int, str]]:
    return [(flaw.chain, flaw.seq, flaw.problem) for flaw in proof.flaws]


def found(proof: Proof, *wanted: tuple[str, int, str]) -> bool:
    """Whether the flaws are those, each by chain, record and a part of its text."""
    seen = problems(proof)
    return len(seen) == len(wanted) and all(one[:2] == other[:2] and other[2] in one[2] for one, other in zip(seen, wanted, strict=True))


def rehashed(row: Row, **changes: Any) -> Row:
    """A row whose hash fits what stands in it."""
    row = {**row, **changes}
    return {**row, "hash": hashlib.sha256((row["prev"] + row["body"]).encode()).hexdigest()}


def test_an_untouched_trail_is_sound_and_counted(keys: Plain) -> None:
    one, other = chain_of(20), chain_of(3, "a_2")
    proof = verify_chains(iter([*one, *other]), [head_of(keys, one[4]), head_of(keys, one[-1]), head_of(keys, other[1])], keys)
    assert (proof.records, proof.chains, proof.heads, proof.cuts, proof.unwitnessed) == (23, 2, 3, 0, 1)
    assert proof.is_sound and proof.flaws == []


def test_a_trail_without_records_proves_nothing(keys: Plain) -> None:  # attack LOG-07
    empty = "there are no records: an empty trail proves nothing"
    assert verify_chains([], [], keys) == Proof(flaws=[Flaw("", 0, empty)])
    assert verify_chains([], [], keys, allow_empty=True) == Proof()


# attack LOG-04
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_edit_is_found(data: st.DataObject) -> None:
    keys, rows = Plain(), chain_of(8)
    index = data.draw(st.integers(0, 7))
    column = data.draw(st.sampled_from(sorted(rows[0])))
    value = rows[index][column]
    changed = value + 1 if isinstance(value, int) else _flipped(str(value), data)
    rows[index] = {**rows[index], column: changed}
    assert not proof_of(rows, keys).is_sound


def _flipped(text: str, data: st.DataObject) -> str:
    if not text:
        return "x"
    at = data.draw(st.integers(0, len(text) - 1))
    return text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]


# attack LOG-04
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_deletion_or_reordering_is_found(data: st.DataObject) -> None:
    keys, rows = Plain(), chain_of(8)
    first = data.draw(st.integers(0, 6))
    if data.draw(st.booleans()):
        del rows[first]
    else:
        second = data.draw(st.integers(first + 1, 7))
        rows[first], rows[second] = rows[second], rows[first]
    assert not proof_of(rows, keys).is_sound


def test_an_edited_record_is_named(keys: Plain) -> None:
    rows = chain_of(4)
    heads = [head_of(keys, rows[-1])]
    rows[1] = {**rows[1], "body": rows[1]["body"].replace("default", "another")}
    assert found(verify_chains(rows, heads, keys), ("a_1", 2, "does not match its hash"))


@pytest.mark.parametrize("column", ["tenant", "kind", "decision_id", "txn", "at"])
def test_a_column_that_says_something_else_than_the_content_is_named(keys: Plain, column: str) -> None:
    rows = chain_of(4)
    heads = [head_of(keys, rows[-1])]
    rows[2] = {**rows[2], column: 5}
    assert found(verify_chains(rows, heads, keys), ("a_1", 3, f"the columns {column} do not match"))
    rows[2] = {**rows[2], "tenant": None, "kind": None}
    assert "the columns tenant, kind" in problems(verify_chains(rows, heads, keys))[0][2]


def test_a_record_that_does_not_continue_the_one_before_is_named(keys: Plain) -> None:
    rows = chain_of(3)
    forged = rehashed(rows[1], prev="0" * 64)
    heads = [head_of(keys, rows[0])]
    assert found(verify_chains([rows[0], forged, rows[2]], heads, keys), ("a_1", 2, "does not continue"), ("a_1", 3, "does not continue"))
    first = rehashed(rows[0], prev="f" * 64)
    assert found(verify_chains([first], [head_of(keys, first)], keys), ("a_1", 1, "does not continue"))


def test_a_hole_and_a_wrong_order_are_named(keys: Plain) -> None:
    rows = chain_of(4)
    heads = [head_of(keys, rows[-1])]
    hole = verify_chains([rows[0], rows[2], rows[3]], heads, keys)
    assert found(hole, ("a_1", 3, f"record 2 {EXPECTED}"), ("a_1", 4, f"record 3 {EXPECTED}"))
    swapped = verify_chains([rows[0], rows[2], rows[1], rows[3]], heads, keys)
    assert found(swapped, ("a_1", 3, f"record 2 {EXPECTED}"), ("a_1", 2, f"record 3 {EXPECTED}"))
    twice = verify_chains([rows[0], rows[1], rows[1]], [head_of(keys, rows[1])], keys)
    assert found(twice, ("a_1", 2, f"record 3 {EXPECTED}"))


@pytest.mark.parametrize("gone", [1, 2])
def test_a_chain_that_begins_later_than_with_its_first_record_was_cut(keys: Plain, gone: int) -> None:
    rows = chain_of(4)
    cut = verify_chains(rows[gone:], [head_of(keys, rows[-1])], keys)
    assert problems(cut)[0] == ("a_1", gone + 1, f"record 1 {EXPECTED}: records are missing or out of order")


@pytest.mark.parametrize("seq", [0, -1, None, "1", 1.5])
def test_a_record_has_a_number(keys: Plain, seq: Any) -> None:
    rows = chain_of(2)
    odd = rehashed({**rows[0], "seq": seq, "body": json.dumps({**json.loads(rows[0]["body"]), "seq": seq})})
    signed = [keys.sign({"chain": "a_1", "seq": seq, "hash": odd["hash"]}, HEAD_JWT_TYPE)]
    proof = verify_chains([odd], signed, keys)
    assert ("a_1", seq if isinstance(seq, int) else 0, f"record 1 {EXPECTED}: records are missing or out of order") in problems(proof)


@pytest.mark.parametrize("body", ["[]", "null", "{", "[" * 5000, '"a"', "{}"])
def test_a_forged_line_that_is_no_record_is_a_flaw_and_no_crash(keys: Plain, body: str) -> None:
    forged = rehashed({"chain": "a_1", "seq": 1, "body": body, "prev": "0" * 64, "tenant": "default"})
    assert found(verify_chains([forged], [head_of(keys, forged)], keys), ("a_1", 1, "the columns chain, seq, tenant do not match"))


def test_a_cut_is_found_up_to_the_last_kept_head(keys: Plain) -> None:
    rows = chain_of(8)
    heads = [head_of(keys, row) for row in (rows[1], rows[6])]
    assert verify_chains(rows, heads, keys).is_sound
    assert found(verify_chains(rows[:5], heads, keys), ("a_1", 7, f"a signed head names this record, {GONE}"))
    assert len(verify_chains([], heads, keys, allow_empty=True).flaws) == 2
    assert len(verify_chains([], heads, keys).flaws) == 3
    assert found(
        verify_chains([], [head_of(keys, rows[0])], keys, allow_empty=True), ("a_1", 1, f"a signed head names this record, {GONE}")
    )


def test_a_chain_that_was_made_anew_is_found(keys: Plain) -> None:
    heads = [head_of(keys, chain_of(3)[1])]
    assert found(verify_chains(chain_of(3, start=7), heads, keys), ("a_1", 2, f"a signed head {OTHER}"))


def test_a_whole_chain_that_vanished_is_missed_by_the_one_after_it(keys: Plain) -> None:
    rows = chain_of(3)
    before = {"chain": "a_1", "seq": 3, "hash": rows[-1]["hash"]}
    second = chain_of([genesis(before)], "a_2")
    heads = [head_of(keys, second[0])]
    assert verify_chains(rows + second, [*heads, head_of(keys, rows[0])], keys).is_sound
    assert found(verify_chains(second, heads, keys), ("a_1", 3, f"the first record of chain a_2 names this record, {GONE}"))
    other = chain_of([genesis({**before, "hash": "f" * 64})], "a_2")
    wrong = verify_chains(rows + other, [head_of(keys, other[0]), head_of(keys, rows[0])], keys)
    assert found(wrong, ("a_1", 3, f"the first record of chain a_2 {OTHER}"))


@pytest.mark.parametrize("before", [["x"], "x", 5, None, [None, 5]])
def test_a_first_record_that_names_no_heads_says_nothing_of_others(keys: Plain, before: object) -> None:
    rows = chain_of([{**genesis(), "before": before}])
    assert verify_chains(rows, [head_of(keys, rows[0])], keys).is_sound


def test_only_a_first_record_names_the_chains_before(keys: Plain) -> None:
    rows = chain_of([genesis(), genesis({"chain": "a_0", "seq": 1, "hash": "x"})])
    assert verify_chains(rows, [head_of(keys, rows[0])], keys).is_sound


def test_a_head_that_is_not_ours_is_a_flaw(keys: Plain) -> None:
    rows = chain_of(2)
    heads = [head_of(keys, rows[-1]), "nonsense", keys.sign({"chain": "a_1", "seq": 2}, "another-type")]
    proof = verify_chains(rows, heads, keys)
    assert found(proof, ("", 0, "not signed by a key"), ("", 0, "not signed by a key"))
    assert proof.heads == 3


@pytest.mark.parametrize("seq", [0, None, "2"])
def test_a_signed_head_that_names_no_record_is_a_flaw(keys: Plain, seq: Any) -> None:
    rows = chain_of(2)
    head = keys.sign({"chain": "a_1", "seq": seq, "hash": rows[-1]["hash"]}, HEAD_JWT_TYPE)
    assert found(verify_chains(rows, [head], keys), ("a_1", 0, GONE))


def test_a_chain_that_no_head_names_is_called_forged(keys: Plain) -> None:
    rows, forged = chain_of(3, "a_1"), chain_of(2, "a_forged")
    heads = [head_of(keys, rows[-1])]
    assert verify_chains(rows, heads, keys).is_sound
    assert found(verify_chains(rows + forged, heads, keys), ("a_forged", 0, "no signed head names this chain"))


def test_records_after_the_last_head_are_counted(keys: Plain) -> None:
    rows = chain_of(5)
    assert verify_chains(rows, [head_of(keys, rows[3]), head_of(keys, rows[1])], keys).unwitnessed == 1
    assert not verify_chains(rows, [], keys).is_sound


def test_a_process_killed_before_its_first_head_is_not_reported_as_forged(keys: Plain) -> None:
    """But one record of anything else needs a witness, and so do two."""
    begun = verify_chains(chain_of([genesis()], "a_2"), [], keys)
    assert (begun.is_sound, begun.unwitnessed) == (True, 1)
    assert found(verify_chains(chain_of(1, "a_3"), [], keys), ("a_3", 0, "no signed head"))
    assert found(verify_chains(chain_of([genesis(), record(2)], "a_4"), [], keys), ("a_4", 0, "no signed head"))
    late = rehashed(chain_of([record(1), genesis()], "a_5")[1])
    assert ("a_5", 0) in [problem[:2] for problem in problems(verify_chains([late], [], keys))]


def test_a_chain_that_began_while_the_heads_were_read_is_no_forgery(keys: Plain) -> None:
    rows = chain_of(3)
    later = [keys.sign({"chain": "a_1", "seq": 9, "hash": "f" * 64}, HEAD_JWT_TYPE), "nonsense"]
    assert not verify_chains(rows, [], keys).is_sound
    proof = verify_chains(rows, [], keys, later)
    assert (proof.is_sound, proof.unwitnessed, proof.heads) == (True, 3, 0)
    assert not verify_chains(rows, [], keys, ["nonsense"]).is_sound


def test_heads_of_a_gateway_at_work_are_read_after_the_rows(keys: Plain) -> None:
    order = []

    def seen(what: str, items: list[Any]) -> Iterator[Any]:
        order.append(what)
        yield from items

    rows = chain_of(1)
    assert verify_chains(seen("rows", rows), [], keys, seen("later", [head_of(keys, rows[0])])).is_sound
    assert order == ["rows", "later"]


@pytest.mark.parametrize("kept", [1, 2, 5, 9])
def test_after_a_cut_the_rest_is_sound(keys: Plain, kept: int) -> None:
    """Whatever was signed of the records that went, and whether all of them went, or none did yet."""
    rows = chain_of(10)
    signed = [*(head_of(keys, row) for row in rows), cut_at(keys, rows, kept)]
    for rest in (rows[kept:], rows[kept - 1 :], rows):
        proof = verify_chains(rest, signed, keys)
        assert (proof.flaws, proof.records, proof.heads, proof.cuts, proof.unwitnessed) == ([], len(rest), 10, 1, 0)
    assert not verify_chains(rows[kept + 1 :], signed, keys).is_sound
    assert not verify_chains(rows[kept:], signed[:-1], keys).is_sound


def test_a_second_cut_covers_the_first(keys: Plain) -> None:
    rows = chain_of(10)
    signed = [cut_at(keys, rows, 3), cut_at(keys, rows, 6), head_of(keys, rows[-1])]
    for gone in range(7):
        proof = verify_chains(rows[gone:], signed, keys)
        assert (proof.flaws, proof.cuts) == ([], 2)
    assert not verify_chains(rows[7:], signed, keys).is_sound


# attack LOG-04
def test_records_that_do_not_follow_what_was_cut_are_found(keys: Plain) -> None:
    rows, other = chain_of(6), chain_of(6, start=50)
    signed = [cut_at(keys, rows, 3), keys.sign({"chain": "a_1", "seq": 6, "hash": other[-1]["hash"]}, HEAD_JWT_TYPE)]
    proof = verify_chains(other[3:], signed, keys)
    assert ("a_1", 4, f"record 1 {EXPECTED}: records are missing or out of order") in problems(proof)
    assert ("a_1", 3) in [problem[:2] for problem in problems(proof)]
    wrong = verify_chains(other, [*signed[:1], head_of(keys, other[-1])], keys)
    assert found(wrong, ("a_1", 3, f"the statement of a cut {OTHER}"))


def test_a_cut_of_one_chain_covers_no_other(keys: Plain) -> None:
    one, other = chain_of(6), chain_of(6, "a_2")
    signed = [cut_at(keys, one, 3), head_of(keys, one[-1]), head_of(keys, other[-1])]
    assert verify_chains([*one[3:], *other], signed, keys).is_sound
    assert not verify_chains([*one[3:], *other[3:]], signed, keys).is_sound


def test_a_first_record_may_name_what_was_cut_since(keys: Plain) -> None:
    rows = chain_of(5)
    second = chain_of([genesis({"chain": "a_1", "seq": 2, "hash": rows[1]["hash"]})], "a_2")
    signed = [cut_at(keys, rows, 3), head_of(keys, rows[-1]), head_of(keys, second[0])]
    assert verify_chains([*rows[3:], *second], signed, keys).is_sound


def test_the_records_of_a_database_come_in_the_order_of_their_chains(connection: Connection) -> None:
    one, other = chain_of(3), chain_of(2, "a_2")
    connection.execute(audit_table.insert(), [other[1], one[2], one[0], other[0], one[1]])
    found = list(read_rows(connection))
    assert found == [*one, *other]
    assert list(found[0]) == [column.name for column in audit_table.columns]
