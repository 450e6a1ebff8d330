"""Verification of the audit log: finds edited, deleted or reordered records, and records missing up to the last signed head."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from policies.audit.cuts import parse_cut_statements
from policies.audit.heads import HEAD_JWT_TYPE, StatementVerifier
from policies.audit.log import GENESIS_HASH
from policies.tables import audit_records as audit_table

COLUMNS = frozenset(column.name for column in audit_table.columns)
NEWEST_MAX, NEWEST_OF_CHAIN_MAX = 2000, 1200  # rows that one verification of the newest reads
COPIED_COLUMNS = ("chain", "seq", "tenant", "kind", "at", "decision_id", "txn")


@dataclass(frozen=True, slots=True)
class Flaw:
    """A problem that verification found, and the record that has it."""

    chain: str
    seq: int
    problem: str


@dataclass(slots=True)
class Proof:
    """The outcome of a verification; sound when it has no flaws. `is_complete`: it is about all records, and not about the newest.

    `unwitnessed` counts the records after the last one that a signed head names. They are a moment old, left by a crash, or forged.
    """

    records: int = 0
    chains: int = 0
    heads: int = 0
    cuts: int = 0
    unwitnessed: int = 0
    is_complete: bool = True
    flaws: list[Flaw] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        return not self.flaws


def read_rows(connection: Connection) -> Iterator[Mapping[str, Any]]:
    """Yields all audit records of a database, ordered by chain and sequence number."""
    query = select(audit_table).order_by(audit_table.c.chain, audit_table.c.seq)
    found = connection.execute(query, execution_options={"yield_per": 1000})
    for row in found:
        yield dict(row._mapping)


def read_newest_rows(connection: Connection) -> tuple[list[Mapping[str, Any]], bool]:
    """Returns the newest rows of the newest chains, in the order of `read_rows`, and whether these are all there are.

    Reads at most NEWEST_MAX rows, and of one chain NEWEST_OF_CHAIN_MAX. Ids of chains sort by the time at which they began.
    """
    columns, found, left, is_complete = audit_table.c, list[Mapping[str, Any]](), NEWEST_MAX, True
    newest_chain = select(columns.chain).order_by(columns.chain.desc()).limit(1)
    chain = connection.execute(newest_chain).scalar()
    while chain is not None and left > 0:
        bound = min(left, NEWEST_OF_CHAIN_MAX)
        query = select(audit_table).where(columns.chain == chain).order_by(columns.seq.desc()).limit(bound + 1)
        rows = [dict(row._mapping) for row in connection.execute(query)]
        is_complete = is_complete and len(rows) <= bound
        found += reversed(rows[:bound])
        left -= min(len(rows), bound)
        chain = connection.execute(newest_chain.where(columns.chain < chain)).scalar()
    return found, is_complete and chain is None


def verify_chains(
    rows: Iterable[Mapping[str, Any]],
    heads: Iterable[str],
    verifier: StatementVerifier,
    later_heads: Iterable[str] = (),
    *,
    allow_empty: bool = False,
    is_complete: bool = True,
) -> Proof:
    """Verifies records (dicts of the table's columns) and signed heads against each other.

    Rows of one chain must be in order, which is how a reordering is found. `later_heads` were read after the rows, of a running gateway:
    they may name newer records, and only show which chains are its own. An audit log without any record is a flaw unless
    `allow_empty`: every gateway records its start, so an empty log may have been deleted. Where the rows are not `is_complete`, each chain
    may begin anywhere, and other chains may be missing.
    """
    proof = Proof(is_complete=is_complete)
    heads, cuts = parse_cut_statements(heads, verifier)
    proof.cuts = sum(len(each) for each in cuts.values())
    hashes: dict[str, dict[int, str]] = {}
    begins: dict[str, int] = {}  # the number of records of a chain that a cut deleted before its first row
    genesis_heads: list[tuple[str, Mapping[str, Any]]] = []
    begun: set[str] = set()  # chains with a genesis record: a process may end before its first head is signed
    for row in rows:
        chain, seq = str(row.get("chain")), row.get("seq")
        if chain not in hashes:
            begins[chain] = _pruned_before(row, cuts.get(chain, {})) if is_complete else max(_seq_of(row) - 1, 0)
        known = hashes.setdefault(chain, {})
        _check_row(proof, row, known, begins[chain])
        proof.records += 1
        if isinstance(seq, int):
            known[seq] = str(row.get("hash"))
            if seq == 1:
                genesis_heads += [(chain, head) for head in _genesis_heads(row)]
                begun |= {chain} if row.get("kind") == "genesis" else set()
    proof.chains = len(hashes)
    if not proof.records and not allow_empty:
        proof.flaws.append(Flaw("", 0, "there are no records: an empty trail proves nothing"))
    signed = _verify_heads(proof, heads, verifier)
    witnesses = [("a signed head", head) for head in signed]
    witnesses += [(f"the first record of chain {chain}", head) for chain, head in genesis_heads]
    witnesses += [("the statement of a cut", head) for head in _cut_heads(cuts)]
    for witness, head in witnesses:
        if _is_comparable(head, begins, is_complete):
            _check_head(proof, hashes, head, witness)
    witnessed = _last_seq_by_chain(signed)
    own = witnessed.keys() | _last_seq_by_chain(_verify_heads(Proof(), later_heads, verifier)).keys()
    for chain, known in hashes.items():
        if chain not in own and not (len(known) == 1 and chain in begun):
            proof.flaws.append(Flaw(chain, 0, "no signed head names this chain: give the heads of every gateway, or it is forged"))
        proof.unwitnessed += sum(seq > witnessed.get(chain, 0) for seq in known)
    return proof


def _pruned_before(first: Mapping[str, Any], cuts: Mapping[int, str]) -> int:
    """The number of records that a signed cut deleted before this first row of a chain; 0 where no cut covers the gap."""
    gone, prev = _seq_of(first) - 1, first.get("prev")
    covered = any(seq >= gone for seq in cuts) and cuts.get(gone, prev) == prev
    return max(gone, 0) if covered else 0


def _is_comparable(head: Mapping[str, Any], begins: Mapping[str, int], is_complete: bool) -> bool:
    """Returns whether a record that a head names should be there: a deleted one, and one that was not read, can't be compared."""
    chain = str(head.get("chain"))
    return (is_complete or chain in begins) and not 0 < _seq_of(head) <= begins.get(chain, 0)


def _cut_heads(cuts: Mapping[str, Mapping[int, str]]) -> list[Mapping[str, Any]]:
    return [{"chain": chain, "seq": seq, "hash": digest} for chain, each in cuts.items() for seq, digest in each.items()]


def _seq_of(named: Mapping[str, Any]) -> int:
    seq = named.get("seq")
    return seq if isinstance(seq, int) else 0


def _verify_heads(proof: Proof, heads: Iterable[str], verifier: StatementVerifier) -> list[Mapping[str, Any]]:
    """The claims of the heads that a key of this gateway signed. Every other line becomes a flaw of `proof`."""
    found = []
    for signed in heads:
        proof.heads += 1
        try:
            found.append(verifier.verify(signed, HEAD_JWT_TYPE))
        except ValueError:
            proof.flaws.append(Flaw("", 0, "a kept head is not signed by a key of this gateway"))
    return found


def _last_seq_by_chain(heads: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """The highest sequence number of each chain among the heads."""
    last: dict[str, int] = {}
    for head in heads:
        chain, seq = str(head.get("chain")), _seq_of(head)
        last[chain] = max(seq, last.get(chain, seq))
    return last


def _check_row(proof: Proof, row: Mapping[str, Any], known: Mapping[int, str], pruned: int) -> None:
    chain, seq, at = str(row.get("chain")), row.get("seq"), _seq_of(row)
    body, prev = str(row.get("body")), str(row.get("prev"))
    expected = pruned + len(known) + 1
    if seq != expected:
        proof.flaws.append(Flaw(chain, at, f"record {expected} was expected here: records are missing or out of order"))
    elif prev != known.get(expected - 1, prev if pruned and not known else GENESIS_HASH):
        proof.flaws.append(Flaw(chain, at, "it does not continue the record before it"))
    if hashlib.sha256(prev.encode() + body.encode()).hexdigest() != row.get("hash"):
        proof.flaws.append(Flaw(chain, at, "its content does not match its hash"))
        return
    document = _parse_body(body)
    changed = [name for name in COPIED_COLUMNS if document.get(name) != row.get(name)]
    if changed:
        proof.flaws.append(Flaw(chain, at, f"the columns {', '.join(changed)} do not match its content"))


def _parse_body(body: str) -> Mapping[str, Any]:
    """The content of a record as a mapping; empty for anything but a JSON object, which then matches no column."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _genesis_heads(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = _parse_body(str(row.get("body"))).get("before")
    return [head for head in found if isinstance(head, dict)] if isinstance(found, list) else []


def _check_head(proof: Proof, hashes: Mapping[str, Mapping[int, str]], head: Mapping[str, Any], witness: str) -> None:
    chain, seq = str(head.get("chain")), _seq_of(head)
    found = hashes.get(chain, {}).get(seq)
    if found is None:
        proof.flaws.append(Flaw(chain, seq, f"{witness} names this record, but it is gone: the chain was cut"))
    elif found != head.get("hash"):
        proof.flaws.append(Flaw(chain, seq, f"{witness} has another hash for this record"))
