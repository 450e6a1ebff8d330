import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from gateway.database import engine_for
from policies.audit import Audit, Head, last_heads
from policies.audit_heads import TYPE, HeadsFile, read_heads
from policies.audit_proof import Proof, prove
from policies.keys import SigningKeys
from policies.tables import audit as audit_table
from tests.fakes.clock import Clock


class Rows:
    """The writer's batch, of which only the inserted rows matter here."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def add(self, table: object, row: dict[str, object]) -> None:
        self.rows.append(row)


def record(number: int) -> dict[str, object]:
    return {"kind": "decision", "tenant": "default", "decision_id": f"d_{number}", "txn": "x_1", "allowed": True, "text": "é|\u2028"}


def chain_of(count: int, name: str = "a_1") -> tuple[list[dict[str, object]], Audit]:
    rows, audit = Rows(), Audit(name, lambda: 1_700_000_000_000_000)
    for number in range(count):
        audit.append(rows, record(number))
    audit.committed()
    return rows.rows, audit


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SigningKeys:
    return SigningKeys.open(tmp_path_factory.mktemp("home"))


def proof_of(rows: list[dict[str, object]], keys: SigningKeys, heads: list[str] | None = None) -> Proof:
    """Without `heads`, as if the first record of each chain had been witnessed when it was written."""
    if heads is None:
        firsts = {row["chain"]: row for row in rows if row["seq"] == 1}
        heads = [keys.sign({"chain": chain, "seq": 1, "hash": row["hash"]}, TYPE) for chain, row in firsts.items()]
    return prove(rows, heads, keys)


def test_an_untouched_chain_is_sound(keys: SigningKeys) -> None:
    rows, _ = chain_of(20)
    proof = proof_of(rows, keys)
    assert proof.sound and proof.records == 20 and proof.chains == 1


# attack LOG-04
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_edit_is_found(data: st.DataObject, keys: SigningKeys) -> None:
    rows, _ = chain_of(8)
    index = data.draw(st.integers(0, 7))
    column = data.draw(st.sampled_from(sorted(rows[0])))
    value = rows[index][column]
    changed = value + 1 if isinstance(value, int) else _flipped(str(value), data)
    rows[index] = {**rows[index], column: changed}
    assert not proof_of(rows, keys).sound


def _flipped(text: str, data: st.DataObject) -> str:
    if not text:
        return "x"
    at = data.draw(st.integers(0, len(text) - 1))
    return text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :]


# attack LOG-04
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_deletion_or_reordering_is_found(keys: SigningKeys, data: st.DataObject) -> None:
    rows, _ = chain_of(8)
    first = data.draw(st.integers(0, 6))
    if data.draw(st.booleans()):
        del rows[first]
    else:
        second = data.draw(st.integers(first + 1, 7))
        rows[first], rows[second] = rows[second], rows[first]
    assert not proof_of(rows, keys).sound


def test_a_cut_is_found_up_to_the_last_kept_head(keys: SigningKeys, tmp_path) -> None:
    rows, audit = chain_of(8)
    file = HeadsFile(tmp_path / "audit.heads", keys, Clock().us)
    assert file.keep(audit.head)
    heads = read_heads(tmp_path / "audit.heads")
    assert proof_of(rows, keys, heads).sound
    flaws = proof_of(rows[:5], keys, heads).flaws
    assert flaws and "cut" in flaws[0].problem


def test_a_whole_chain_that_vanished_is_missed_by_the_one_after_it(keys: SigningKeys) -> None:
    rows, _ = chain_of(3, "a_1")
    second = Rows()
    later = Audit("a_2", lambda: 1)
    before = [{"chain": "a_1", "seq": 3, "hash": rows[-1]["hash"]}]
    later.append(second, {"kind": "genesis", "tenant": "", "decision_id": "", "txn": "", "before": before})
    assert proof_of(rows + second.rows, keys).sound
    assert not proof_of(second.rows, keys).sound


def test_a_head_of_another_key_is_a_flaw(keys: SigningKeys, tmp_path) -> None:
    rows, audit = chain_of(2)
    stranger = SigningKeys.open(tmp_path)
    file = HeadsFile(tmp_path / "audit.heads", stranger, Clock().us)
    file.keep(audit.head)
    assert not proof_of(rows, keys, read_heads(tmp_path / "audit.heads")).sound


def test_a_rolled_back_record_leaves_no_gap(keys: SigningKeys) -> None:
    rows, audit = Rows(), Audit("a_1", lambda: 1)
    audit.append(rows, record(1))
    audit.committed()
    kept = list(rows.rows)
    audit.append(rows, record(2))
    audit.rolled_back()
    again = Rows()
    audit.append(again, record(3))
    assert proof_of(kept + again.rows, keys).sound


def test_the_heads_file_keeps_the_last_head_of_each_chain(keys: SigningKeys, tmp_path) -> None:
    path = tmp_path / "audit.heads"
    file = HeadsFile(path, keys, Clock().us)
    for head in (Head("a", 1, "0" * 64), Head("a", 2, "1" * 64), Head("b", 7, "2" * 64)):
        file.keep(head)
    file.compact()
    kept = [json.loads(json.dumps(dict(keys.verify(line, "interlock-audit-head+jwt")))) for line in read_heads(path)]
    assert [(head["chain"], head["seq"]) for head in kept] == [("a", 2), ("b", 7)]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("body", ["[]", "null", "{", "[" * 5000])
def test_a_forged_line_that_is_no_record_is_a_flaw_and_no_crash(keys: SigningKeys, body: str) -> None:
    prev = "0" * 64
    digest = hashlib.sha256(prev.encode() + body.encode()).hexdigest()
    forged = {"chain": "a_1", "seq": 1, "body": body, "prev": prev, "hash": digest, "tenant": "default"}
    assert not proof_of([forged], keys).sound


def test_an_old_head_that_is_written_again_does_not_push_out_the_last_one(keys: SigningKeys, tmp_path) -> None:  # attack LOG-04
    path = tmp_path / "audit.heads"
    file = HeadsFile(path, keys, Clock().us)
    first = file.keep(Head("a", 1, "0" * 64))
    last = file.keep(Head("a", 9, "9" * 64))
    path.write_text(f"{last}\nnonsense\n{first}\n")
    file.compact()
    assert read_heads(path) == [last, "nonsense"]


def test_the_heads_file_does_not_grow_for_ever(keys: SigningKeys, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.audit_heads.COMPACT_AFTER", 10)
    path = tmp_path / "audit.heads"
    file = HeadsFile(path, keys, Clock().us)
    for number in range(1, 36):
        file.keep(Head("a", number, f"{number:064}"))
    kept = [keys.verify(line, "interlock-audit-head+jwt")["seq"] for line in read_heads(path)]
    assert len(kept) <= 10 and kept[-1] == 35


def test_a_head_for_which_there_is_no_room_leaves_no_torn_line(keys: SigningKeys, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "audit.heads"
    file = HeadsFile(path, keys, Clock().us)
    file.keep(Head("a", 1, "0" * 64))
    before, write = path.read_bytes(), os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:40]))
        with pytest.raises(OSError, match="no room"):
            file.keep(Head("a", 2, "1" * 64))
    assert path.read_bytes() == before
    assert file.keep(Head("a", 2, "1" * 64))
    assert [keys.verify(line, "interlock-audit-head+jwt")["seq"] for line in read_heads(path)] == [1, 2]


def test_processes_that_share_a_heads_file_lose_none_of_each_others_heads(keys: SigningKeys, tmp_path) -> None:
    """Some append while others compact."""
    path = tmp_path / "audit.heads"

    def keep(chain: str) -> None:
        file = HeadsFile(path, keys, Clock().us)
        for number in range(1, 31):
            file.keep(Head(chain, number, f"{number:064}"))
            if number % 3 == 0:
                file.compact()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(keep, "abcd"))
    HeadsFile(path, keys, Clock().us).compact()
    kept = [keys.verify(line, "interlock-audit-head+jwt") for line in read_heads(path)]
    assert sorted((head["chain"], head["seq"]) for head in kept) == [(chain, 30) for chain in "abcd"]


def test_the_heads_of_all_chains_are_found_without_reading_them(database_url: str) -> None:
    engine = engine_for(database_url)
    assert _last_heads(engine) == []
    for name, count in (("a_2", 3), ("a_10", 1), ("a_1", 5), ("Z", 2)):
        rows, audit = chain_of(count, name)
        with engine.begin() as connection:
            connection.execute(audit_table.insert(), rows)
        assert audit.head in _last_heads(engine)
    assert sorted((head.chain, head.seq) for head in _last_heads(engine)) == [("Z", 2), ("a_1", 5), ("a_10", 1), ("a_2", 3)]
    engine.dispose()


def _last_heads(engine: Engine) -> list[Head]:
    with engine.connect() as connection:
        return last_heads(connection.execution_options(interlock_read=True))


def test_a_chain_that_no_head_names_is_called_forged(keys: SigningKeys) -> None:
    rows, audit = chain_of(3, "a_1")
    forged, _ = chain_of(2, "a_forged")
    heads = [keys.sign({"chain": "a_1", "seq": 3, "hash": audit.head.hash}, TYPE)]
    assert proof_of(rows, keys, heads).sound
    assert [flaw.chain for flaw in proof_of(rows + forged, keys, heads).flaws] == ["a_forged"]


def test_records_after_the_last_head_are_counted(keys: SigningKeys) -> None:
    rows, _ = chain_of(3, "a_1")
    heads = [keys.sign({"chain": "a_1", "seq": 2, "hash": rows[1]["hash"]}, TYPE)]
    assert proof_of(rows, keys, heads).unwitnessed == 1
    assert not proof_of(rows, keys, []).sound


def test_a_process_that_was_killed_before_its_first_head_left_nothing_that_is_forged(keys: SigningKeys) -> None:
    """But one record of anything else needs a witness."""
    begun = Rows()
    Audit("a_2", lambda: 1).append(begun, {"kind": "genesis", "tenant": "", "decision_id": "", "txn": "", "before": []})
    assert proof_of(begun.rows, keys, []).sound
    other, _ = chain_of(1, "a_3")
    assert not proof_of(other, keys, []).sound


def test_a_chain_that_began_while_the_heads_were_read_is_no_forgery(keys: SigningKeys) -> None:
    rows, audit = chain_of(3, "a_1")
    later = [keys.sign({"chain": "a_1", "seq": 9, "hash": "f" * 64}, TYPE)]
    assert not prove(rows, [], keys).sound
    proof = prove(rows, [], keys, later)
    assert proof.sound and proof.unwitnessed == audit.head.seq
