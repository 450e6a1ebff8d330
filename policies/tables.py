"""Rows of authority: grants, tickets, kills, the audit, spent ids, approvals, errands, the vault. Times are microseconds since 1970 UTC.

References to tasks have no foreign key: they are rows of `gateway`, which this package does not know. References to decisions have none:
the audit is cut by its own retention, and a decision may be one of many records.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import BigInteger, Column, Connection, ForeignKeyConstraint, Index, MetaData, Table, Text, text

metadata = MetaData()
LIMITED_ROLES = text("roles_until IS NOT NULL")
RARE_KIND: Final = "kind NOT IN ('decision', 'outcome')"  # of records: a query that repeats this condition may use the index of it
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class PartialInsert:
    """Rows that leave the other columns of a table to their defaults. Each column that a row brings costs part of a microsecond."""

    table: Table
    columns: tuple[str, ...]


class WriteBatch(Protocol):
    """A transaction of the database writer; gateway/storage/batch.py implements it."""

    def add(self, table: Table, row: dict[str, Any]) -> None: ...

    def insert(self, target: Table | PartialInsert, values: tuple[Any, ...]) -> None: ...

    def run(self, statement: str, values: tuple[Any, ...]) -> int: ...

    @property
    def connection(self) -> Connection: ...


class TransactionalDatabase(Protocol):
    """The database; gateway/storage/database.py implements it."""

    async def write(self, work: Callable[[Any], T]) -> T: ...

    async def read(self, work: Callable[[Connection], T]) -> T: ...


grants = Table(
    "grants",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("parent_id", Text, nullable=False),  # empty for the first; no key: a grant whose parent is deleted is refused
    Column("txn", Text, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("roles", Text, nullable=False),  # JSON: as the issuer vouched for them at the first hop
    Column("scope", Text, nullable=False),  # permission strings, space-separated
    Column("path", Text, nullable=False),  # JSON [{"agent", "ceiling"}]
    Column("depth_max", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),  # of the grants, at creation
    Column("created", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("revoked", BigInteger),
    Column("deadline", BigInteger),  # of the turn that the grant was made for, while it runs
    Column("roles_until", BigInteger),  # until when the vouched roles count; NULL: as long as the grant
    Index("grants_of_run", "tenant", "task_id", sqlite_where=LIMITED_ROLES, postgresql_where=LIMITED_ROLES),
)

audit_records = Table(
    "audit",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("kind", Text, nullable=False),  # genesis | decision | outcome | …
    Column("at", BigInteger, nullable=False),
    Column("decision_id", Text, nullable=False),
    Column("txn", Text, nullable=False),
    Column("body", Text, nullable=False),  # the record as JSON; the hash covers these bytes
    Column("prev", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("audit_decision", "decision_id"),
    Index("audit_txn", "txn"),
    Index("audit_at", "tenant", "at"),
    Index("audit_kind", "tenant", "kind", "at", sqlite_where=text(RARE_KIND), postgresql_where=text(RARE_KIND)),
)

refusals = Table(
    "refusals",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("owner", Text, primary_key=True),  # tenant|issuer|subject of the person who was refused
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("decision_id", Text, primary_key=True),  # no key: the audit has the decision, and is cut by its own retention
    Column("hidden", BigInteger, nullable=False),  # 1: the person was told that there is no such thing
    Index("refusals_at", "tenant", "at"),
    sqlite_with_rowid=False,  # the rows lie in the order of the key, in which a person's are read
)

tickets = Table(
    "tickets",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("hash", Text, primary_key=True),  # sha256 of the handle, in hex
    Column("agent", Text, nullable=False),  # the only one that it is good for
    Column("grant_id", Text, nullable=False),  # no key: a ticket is over before its grant is deleted, and written with each call
    Column("not_after", BigInteger, nullable=False),
    Index("tickets_not_after", "tenant", "not_after"),
)

kills = Table(
    "kills",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # agent | server | user
    Column("name", Text, nullable=False),  # of a person tenant|issuer|subject
    Column("reason", Text, nullable=False),  # as the operator wrote it
    Column("by", Text, nullable=False),  # tenant|issuer|subject
    Column("at", BigInteger, nullable=False),
)

spent_ids = Table(
    "spent",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),  # issuer and jti of a one-time assertion
    Column("not_after", BigInteger, nullable=False),
)

approvals = Table(
    "approvals",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),  # tenant|issuer|subject of the person the act is for
    Column("txn", Text, nullable=False),
    Column("task_id", Text, nullable=False),  # the task that requested the act; for a paused task its own id
    Column("grant_id", Text, nullable=False),  # the authority that a paused task continues with; empty: the caller asks again
    Column("decision_id", Text, nullable=False),  # of the question
    Column("act", Text, nullable=False),  # JSON
    Column("chain", Text, nullable=False),  # JSON list of agents
    Column("definition", Text, nullable=False),  # sha256 of the definition's canonical form (RFC 8785)
    Column("arguments_hash", Text, nullable=False),  # sha256 of the arguments' canonical form
    Column("arguments", Text, nullable=False),  # JSON, for the people who decide; empty after it was deleted
    Column("described", Text, nullable=False),
    Column("policies", Text, nullable=False),  # JSON list of the @ids that require the approval
    Column("prompt", Text, nullable=False),
    Column("state", Text, nullable=False),  # pending | approved | denied | used | expired | void
    Column("errand", Text, nullable=False),  # JSON: what else a paused task needs to continue
    Column("used_by", Text, nullable=False),  # the decision that used it
    Column("reason", Text, nullable=False),  # of a denial
    Column("needed", BigInteger, nullable=False),  # number of approvals
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("closed", BigInteger),
    Index("approvals_owner", "tenant", "owner", "created"),
    Index("approvals_created", "tenant", "created"),
    Index("approvals_arguments", "tenant", "arguments_hash"),
    Index("approvals_open", "tenant", "created", sqlite_where=text("closed IS NULL"), postgresql_where=text("closed IS NULL")),
)

approval_votes = Table(
    "approval_votes",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("approval_id", Text, primary_key=True),
    Column("voter", Text, primary_key=True),  # tenant|issuer|subject
    Column("verdict", Text, nullable=False),  # approve | deny
    Column("reason", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    ForeignKeyConstraint(
        ["tenant", "approval_id"], ["approvals.tenant", "approvals.id"], name="approval_votes_approval", ondelete="CASCADE"
    ),
)

transaction_history = Table(
    "errands",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("txn", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),  # counts the acts whose ruling depended on the history
    Column("taint", BigInteger, nullable=False),  # the highest sensitivity of the data that the transaction received
    Column("totals", Text, nullable=False),  # JSON: argument -> sum
    Column("updated", BigInteger, nullable=False),
    Index("errands_updated", "tenant", "updated"),
)

epochs = Table(
    "epochs",
    metadata,
    Column("name", Text, primary_key=True),  # grants | kills | registry | policies | keys
    Column("value", BigInteger, nullable=False),
)

vault_credentials = Table(
    "vault",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("owner", Text, primary_key=True),  # tenant|issuer|subject of a person; empty: the gateway's own account
    Column("issuer", Text, primary_key=True),  # the authorization server
    Column("resource", Text, primary_key=True),
    Column("origin", Text, nullable=False),  # of the resource
    Column("kek_id", Text, nullable=False),  # these three are an envelope (policies/vault/envelope.py), valid only in this row
    Column("wrapped", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Index("vault_origin", "tenant", "owner", "origin"),
)

vault_clients = Table(
    "vault_clients",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("issuer", Text, primary_key=True),
    Column("kek_id", Text, nullable=False),
    Column("wrapped", Text, nullable=False),
    Column("body", Text, nullable=False),
)

vault_leases = Table(
    "vault_leases",
    metadata,
    Column("id", Text, primary_key=True),  # digest of the credential that one process changes at a time
    Column("holder", Text, nullable=False),
    Column("until", BigInteger, nullable=False),
)
