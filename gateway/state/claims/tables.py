"""Tables of claims. They refer to tasks and decisions without foreign keys, since those have a retention of their own."""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Table, Text

from gateway.storage.tables import metadata, partial_index

HELD: Final = "held"
COOLING: Final = "cooling"  # released or expired, and others still wait
ENDED: Final = "ended"
OPEN: Final = partial_index("state <> 'ended'")
HELD_ONLY: Final = partial_index("state = 'held'")

claims = Table(
    "claims",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("subject", Text, nullable=False),  # customer:42
    Column("effect", Text, nullable=False),  # outbound-email; `*` for all effects on the subject
    Column("owner", Text, nullable=False),  # tenant|issuer|subject of the person whom the holder acts for
    Column("agent", Text, nullable=False),  # the last of the chain; empty for the person
    Column("chain", Text, nullable=False),  # JSON array of the agents of the chain, the first called first
    Column("task_id", Text, nullable=False),
    Column("txn", Text, nullable=False),
    Column("decision_id", Text, nullable=False),  # of the ruling that allowed the claim
    Column("purpose", Text, nullable=False),
    Column("priority", BigInteger, nullable=False),  # 0..1000
    Column("token", BigInteger, nullable=False),  # the fencing token: the version of the subject that the claim made
    Column("created", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("cool_down", BigInteger, nullable=False),  # microseconds after the end
    Column("state", Text, nullable=False),  # held | cooling | ended
    Column("ended", BigInteger),  # when it was released or pre-empted, or was found to have expired
    Column("ended_as", Text, nullable=False),  # released | pre-empted | expired, or empty
    Column("ended_by", Text, nullable=False),  # the id of the claim that pre-empted it, or empty
    Index("claims_open", "tenant", "subject", **OPEN),
    Index("claims_held", "tenant", "subject", "effect", unique=True, **HELD_ONLY),
    Index("claims_owner", "tenant", "owner", "created", **OPEN),
    Index("claims_ended", "ended"),
)
