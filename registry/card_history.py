"""Versions of a card or of a server's definitions: approved, waiting for an operator, or rejected."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from registry.rows import sha256_hex
from registry.tables import cards

VERSIONS_KEPT = 200  # versions of one agent


class VersionStatus(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class CardVersion:
    """One version as received: of an agent the card, of a server its definitions. `facts` apply once it is approved."""

    seq: int
    at: int  # microseconds since 1970
    card: str = field(repr=False)
    hash: str
    signature: str
    facts: Mapping[str, Any]
    status: VersionStatus
    note: str


@dataclass(frozen=True, slots=True)
class NewCardVersion:
    """A version to be written."""

    card: str = field(repr=False)
    signature: str
    status: VersionStatus
    facts: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


def write_version(connection: Connection, key: tuple[str, str], at: int, version: NewCardVersion) -> None:
    """Writes a version of (tenant, name), and rejects the pending one: at most one version waits for approval."""
    of_entry = (cards.c.tenant == key[0], cards.c.name == key[1])
    last = connection.execute(select(func.max(cards.c.seq)).where(*of_entry)).scalar() or 0
    reject_pending(connection, key)
    row = {"tenant": key[0], "name": key[1], "seq": last + 1, "at": at, "card": version.card, "hash": sha256_hex(version.card)}
    row |= {"signature": version.signature, "facts": json.dumps(dict(version.facts)), "status": version.status.value, "note": version.note}
    connection.execute(insert(cards).values(row))
    connection.execute(delete(cards).where(*of_entry, cards.c.seq <= last + 1 - VERSIONS_KEPT))


def reject_pending(connection: Connection, key: tuple[str, str]) -> None:
    """Rejects the version that waits for approval."""
    waiting = (cards.c.tenant == key[0], cards.c.name == key[1], cards.c.status == VersionStatus.PENDING.value)
    connection.execute(update(cards).where(*waiting).values(status=VersionStatus.REJECTED.value))


def approve_version(connection: Connection, key: tuple[str, str], seq: int) -> None:
    """Marks a pending version as approved."""
    of_version = (cards.c.tenant == key[0], cards.c.name == key[1], cards.c.seq == seq)
    connection.execute(update(cards).where(*of_version).values(status=VersionStatus.APPROVED.value))


def delete_versions(connection: Connection, key: tuple[str, str]) -> None:
    connection.execute(delete(cards).where(cards.c.tenant == key[0], cards.c.name == key[1]))


def read_versions(connection: Connection, key: tuple[str, str], before: int = 0, limit: int = VERSIONS_KEPT) -> Sequence[CardVersion]:
    """The versions, newest first; with `before`, those with a lower number."""
    query = select(cards).where(cards.c.tenant == key[0], cards.c.name == key[1])
    if before:
        query = query.where(cards.c.seq < before)
    return [_version_from_row(row) for row in connection.execute(query.order_by(cards.c.seq.desc()).limit(limit))]


def find_pending(connection: Connection, key: tuple[str, str]) -> CardVersion | None:
    """The version that waits for approval, or None."""
    waiting = (cards.c.tenant == key[0], cards.c.name == key[1], cards.c.status == VersionStatus.PENDING.value)
    row = connection.execute(select(cards).where(*waiting).order_by(cards.c.seq.desc()).limit(1)).first()
    return _version_from_row(row) if row else None


def _version_from_row(row: Any) -> CardVersion:
    return CardVersion(row.seq, row.at, row.card, row.hash, row.signature, json.loads(row.facts), VersionStatus(row.status), row.note)
