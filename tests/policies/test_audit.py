import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.audit import Audit, Head
from policies.audit_heads import HeadsFile, read_heads
from policies.audit_proof import Proof, prove
from policies.keys import SigningKeys
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
    return prove(rows, heads or [], keys)


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
