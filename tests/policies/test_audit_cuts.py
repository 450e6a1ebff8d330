"""Old records that go, and what shows of the rest that nothing else went."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from gateway.database import engine_for
from policies.audit import Audit
from policies.audit_cuts import TYPE as CUT
from policies.audit_cuts import Cut, carry_out, due, records
from policies.audit_heads import TYPE as HEAD
from policies.audit_proof import Proof, prove, rows_of
from policies.jwks import BadKeySet
from policies.keys import SigningKeys
from policies.published_keys import NotSigned, PublishedKeys
from policies.tables import audit as audit_table

Row = dict[str, Any]


class Rows:
    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, table: object, row: Row) -> None:
        self.rows.append(row)


def chain_of(count: int, name: str = "a_1", start: int = 0) -> list[Row]:
    """Records a microsecond apart from `start`."""
    batch = Rows()
    audit = Audit(name, lambda: start + len(batch.rows))
    for number in range(count):
        audit.append(batch, {"kind": "decision", "tenant": "default", "decision_id": f"d_{number}", "txn": "x_1", "at": start + number + 1})
    return batch.rows


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> SigningKeys:
    return SigningKeys.open(tmp_path_factory.mktemp("home"))


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    engine = engine_for(database_url)
    with engine.connect() as opened:
        yield opened
    engine.dispose()


def head_of(keys: SigningKeys, row: Row) -> str:
    return keys.sign({"chain": row["chain"], "seq": row["seq"], "hash": row["hash"]}, HEAD)


def cut_at(keys: SigningKeys, rows: list[Row], seq: int) -> str:
    last = rows[seq - 1]
    return keys.sign(Cut(last["chain"], seq, last["hash"], seq, 1, seq).claims(1), CUT)


def test_what_is_older_goes_and_the_rest_is_sound(connection: Connection, keys: SigningKeys) -> None:
    """attack LOG-04: retention with provable cuts"""
    old, young, over = chain_of(30), chain_of(30, "a_2", 1000), chain_of(4, "a_3", 5)
    connection.execute(audit_table.insert(), [*old, *young, *over])
    connection.commit()
    cuts = due(connection, 1010)
    assert [(cut.chain, cut.seq, cut.records) for cut in cuts] == [("a_1", 29, 29), ("a_2", 9, 9), ("a_3", 3, 3)]
    kept = [list(records(connection, cut)) for cut in cuts]
    heads = [head_of(keys, rows[-1]) for rows in (old, young, over)]
    signed = [*heads, *(keys.sign(cut.claims(2000), CUT) for cut in cuts)]
    assert [carry_out(connection, cut) for cut in cuts] == [29, 9, 3]
    rest = list(rows_of(connection))
    assert len(rest) == 23
    proof = prove(rest, signed, keys)
    assert proof.sound and (proof.records, proof.chains, proof.cuts) == (23, 3, 3), proof.flaws
    assert not prove(rest, heads, keys).sound  # without its statement a cut is a cut
    for cut, archived in zip(cuts, kept, strict=True):  # whoever kept what went can show that it is that
        assert archived[-1]["hash"] == cut.hash and prove(archived, [head_of(keys, archived[-1])], keys).sound
    assert due(connection, 1010) == []


def test_a_second_cut_goes_on_from_the_first(connection: Connection, keys: SigningKeys) -> None:
    rows = chain_of(20)
    connection.execute(audit_table.insert(), rows)
    connection.commit()
    signed = [head_of(keys, rows[-1])]
    for before in (5, 15):
        (cut,) = due(connection, before)
        signed.append(keys.sign(cut.claims(100), CUT))
        carry_out(connection, cut)
        assert prove(list(rows_of(connection)), signed, keys).sound
    assert [row["seq"] for row in rows_of(connection)] == list(range(15, 21))


def test_a_cut_that_was_interrupted_is_sound_and_is_ended_by_the_next(connection: Connection, keys: SigningKeys) -> None:
    rows = chain_of(20)
    connection.execute(audit_table.insert(), rows[7:])
    connection.commit()
    signed = [head_of(keys, rows[-1]), cut_at(keys, rows, 12)]
    assert prove(list(rows_of(connection)), signed, keys).sound
    (cut,) = due(connection, 13)
    assert (cut.seq, carry_out(connection, cut)) == (12, 5)
    assert prove(list(rows_of(connection)), signed, keys).sound


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_other_cut_edit_or_reordering_is_found(keys: SigningKeys, data: st.DataObject) -> None:
    """attack LOG-04: after an honest cut, by somebody who can write the database and holds every honest statement"""
    length = data.draw(st.integers(4, 12), "length")
    honest = data.draw(st.integers(1, length - 2), "cut")
    rows = chain_of(length)
    rest = [dict(row) for row in rows[honest:]]
    signed = [head_of(keys, rows[-1]), cut_at(keys, rows, honest)]
    assert prove(rest, signed, keys).sound
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
    assert not prove(rest, signed, keys).sound


def test_a_cut_by_another_key_is_a_flaw(keys: SigningKeys, tmp_path: Path) -> None:
    rows, foreign = chain_of(10), SigningKeys.open(tmp_path)
    proof: Proof = prove(rows[5:], [head_of(keys, rows[-1]), cut_at(foreign, rows, 5)], keys)
    assert len(proof.flaws) >= 2


def test_a_chain_in_anothers_place_is_found(keys: SigningKeys) -> None:
    """attack LOG-04: a swapped chain"""
    one, other = chain_of(5), chain_of(5, "a_2", 50)
    signed = [head_of(keys, one[-1]), head_of(keys, other[-1])]
    assert prove([*one, *other], signed, keys).sound
    swapped = [{**row, "chain": "a_2"} for row in one] + [{**row, "chain": "a_1"} for row in other]
    assert not prove(swapped, signed, keys).sound


def test_public_keys_alone_prove_it(keys: SigningKeys, tmp_path: Path) -> None:
    rows = chain_of(10)
    signed = [head_of(keys, rows[-1])]
    keys.rotate()
    published = PublishedKeys(json.loads(json.dumps(keys.published())))
    assert prove(rows, signed, published).sound and keys.active in published.kids
    assert "d" not in json.dumps(keys.published()["keys"][0].get("d", ""))
    foreign = PublishedKeys(SigningKeys.open(tmp_path).published())
    assert not prove(rows, signed, foreign).sound
    with pytest.raises(NotSigned):
        published.verify("a.b.c", HEAD)
    for document in (None, {}, {"keys": []}, {"keys": [{"kty": "oct", "k": "x", "kid": "a"}]}):
        with pytest.raises(BadKeySet):
            PublishedKeys(document)
