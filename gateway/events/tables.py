"""Tables of events on their way: from the commit that they tell of, to webhooks, and to what triggers start."""

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, Table, Text

from gateway.storage.tables import PENDING, metadata


def _number() -> "Column[Any]":
    """A number that the database gives: it grows with each row that follows another one's commit."""
    return Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


def _attempts() -> "list[Column[Any]]":
    return [
        Column("attempts", BigInteger, nullable=False),  # how often it was tried
        Column("next_at", BigInteger, nullable=False),  # when it is tried next, or another process may try it
        Column("state", Text, nullable=False),  # pending | dead
        Column("reason", Text, nullable=False),  # why the last attempt failed, or empty
        Column("created", BigInteger, nullable=False),
        Column("updated", BigInteger, nullable=False),
    ]


event_outbox = Table(
    "event_outbox",
    metadata,
    _number(),
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),  # of the event
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("owner", Text, nullable=False),  # tenant|issuer|subject of the person whom it concerns, or empty
    Column("permission", Text, nullable=False),  # who holds it may see the event too; empty: audit:read alone
    Column("txn", Text, nullable=False),  # of the tasks that brought it about, or empty
    Column("data", Text, nullable=False),  # JSON
    Column("at", BigInteger, nullable=False),
)

event_cursors = Table(
    "event_cursors",
    metadata,
    Column("name", Text, primary_key=True),  # of what is read in order: notices
    Column("cursor", BigInteger, nullable=False),  # the number of the last one that became an event
)

event_deliveries = Table(
    "event_deliveries",
    metadata,
    _number(),
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),  # of the dead letter that it may become
    Column("webhook", Text, nullable=False),  # digest of the webhook's tenant and URL
    Column("subject", Text, nullable=False),  # events of one subject are sent in order; empty: in any order
    Column("event_id", Text, nullable=False),
    Column("event", Text, nullable=False),  # JSON, the structured form
    *_attempts(),
    Index("event_deliveries_id", "tenant", "id"),
    Index("event_deliveries_open", "webhook", "next_at", **PENDING),
    Index("event_deliveries_subject", "webhook", "subject", "seq", **PENDING),
)

event_starts = Table(
    "event_starts",
    metadata,
    _number(),
    Column("tenant", Text, nullable=False),
    Column("id", Text, nullable=False),  # of the dead letter that it may become
    Column("name", Text, nullable=False),  # of the trigger
    Column("start", Text, nullable=False),  # the idempotency key of what it starts, made of the event's source and id
    Column("subject", Text, nullable=False),  # of one subject, what came first is started first; empty: in any order
    Column("event_id", Text, nullable=False),
    Column("event", Text, nullable=False),  # JSON, the structured form
    Column("requesters", Text, nullable=False),  # JSON array of tenant|issuer|subject: whose rights sent the event
    *_attempts(),
    Index("event_starts_start", "tenant", "name", "start", unique=True),
    Index("event_starts_id", "tenant", "id"),
    Index("event_starts_open", "next_at", **PENDING),
    Index("event_starts_subject", "tenant", "name", "subject", "seq", **PENDING),
)

event_triggers = Table(
    "event_triggers",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("last_task", Text, nullable=False),  # what it started last, or empty
    Column("problem", Text, nullable=False),  # why the last start failed, or empty
    Column("updated", BigInteger, nullable=False),
)

event_causes = Table(
    "event_causes",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("txn", Text, primary_key=True),  # of all tasks that follow from what a trigger started
    Column("task_id", Text, nullable=False),  # no key: tasks have a retention of their own
    Column("requesters", Text, nullable=False),  # JSON array of tenant|issuer|subject, who do not approve of anything in it
    Column("at", BigInteger, nullable=False),
    Index("event_causes_at", "at"),
)
