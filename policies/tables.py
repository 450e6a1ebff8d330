"""Rows of authority: grants, tickets, kills, the audit chain and spent one-time ids. Times are microseconds since 1970 UTC."""

from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text

metadata = MetaData()

grants = Table(
    "grants",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("parent_id", Text, nullable=False),
    Column("txn", Text, nullable=False),
    Column("task_id", Text, nullable=False),
    Column("issuer", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("roles", Text, nullable=False),  # JSON: as the issuer vouched for them at the first hop
    Column("scope", Text, nullable=False),  # permission strings, space-separated
    Column("path", Text, nullable=False),  # JSON [{"agent", "ceiling"}]
    Column("depth_max", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),  # of the grants, when it was made
    Column("created", BigInteger, nullable=False),
    Column("not_after", BigInteger, nullable=False),
    Column("revoked", BigInteger),
)

audit = Table(
    "audit",
    metadata,
    Column("chain", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("kind", Text, nullable=False),  # genesis | decision | outcome | …
    Column("at", BigInteger, nullable=False),
    Column("decision_id", Text, nullable=False),
    Column("txn", Text, nullable=False),
    Column("body", Text, nullable=False),  # the record as JSON; the hash covers these very bytes
    Column("prev", Text, nullable=False),
    Column("hash", Text, nullable=False),
    Index("audit_decision", "decision_id"),
    Index("audit_txn", "txn"),
)

tickets = Table(
    "tickets",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("hash", Text, primary_key=True),  # sha256 of the handle, in hex
    Column("agent", Text, nullable=False),  # the only one that it is good for
    Column("grant_id", Text, nullable=False),
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
    Column("reason", Text, nullable=False),  # in the words of who stopped it
    Column("by", Text, nullable=False),  # tenant|issuer|subject
    Column("at", BigInteger, nullable=False),
)

spent = Table(
    "spent",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),  # issuer and jti of a one-time assertion
    Column("not_after", BigInteger, nullable=False),
)

epochs = Table(
    "epochs",
    metadata,
    Column("name", Text, primary_key=True),  # grants | kills | registry | policies | keys
    Column("value", BigInteger, nullable=False),
)
