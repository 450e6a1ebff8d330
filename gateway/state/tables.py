"""Tables of shared state: values of the board with their history, values that are held back, and versions of subjects.

No table refers to tasks or decisions by a foreign key: tasks and the audit have a retention of their own, and a value outlives both. The
history of a key outlives its value, so that a value that is set again goes on counting versions.
"""

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Table, Text

from gateway.storage.tables import PENDING, metadata, partial_index

KEY_TEXT = Text().with_variant(Text(collation="C"), "postgresql")  # ordered by bytes, so that a prefix is a range of keys
EXPIRING = partial_index("expires IS NOT NULL")


def columns_of_source() -> tuple[Column[Any], ...]:
    """Returns new columns for the author of a value: person, agent and task; and for its sensitivity."""
    return (
        Column("sensitivity", BigInteger, nullable=False),  # 0..3
        Column("updated_by", Text, nullable=False),  # tenant|issuer|subject of the person for whom the value was written
        Column("agent", Text, nullable=False),  # the agent that wrote it, the last of the chain; empty where the person did
        Column("chain", Text, nullable=False),  # JSON array of the agents of the chain, the first called first
        Column("task_id", Text, nullable=False),  # the task in which it was written, or empty
        Column("decision_id", Text, nullable=False),  # of the ruling that allowed the write
    )


state_values = Table(
    "state_values",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("key", KEY_TEXT, primary_key=True),  # customer/42/status
    Column("version", BigInteger, nullable=False),  # grows by one with each change
    Column("value", Text, nullable=False),  # JSON
    *columns_of_source(),
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("expires", BigInteger),  # the value is gone from then on
    Index("state_values_expiring", "expires", **EXPIRING),
)

state_changes = Table(
    "state_changes",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # in the order of commits, see gateway/state/board/counters.py
    Column("key", KEY_TEXT, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),  # set | deleted | expired
    Column("value", Text),  # JSON; NULL: the value was deleted, or has expired
    *columns_of_source(),
    Column("at", BigInteger, nullable=False),
    Index("state_changes_key", "tenant", "key", "version"),
    Index("state_changes_at", "at"),
)

state_counters = Table(
    "state_counters",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),  # of the newest change
    Column("pruned", BigInteger, nullable=False),  # of the newest change that was deleted because of its age
    Column("floor", BigInteger, nullable=False, server_default="0"),  # versions of keys without a history begin above it
    Column("key_count", BigInteger, nullable=False),  # how many values there are
    Column("byte_count", BigInteger, nullable=False),  # of their JSON
)

state_held = Table(
    "state_held",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("key", KEY_TEXT, nullable=False),
    Column("base", BigInteger, nullable=False),  # the version that the writer wanted to replace; 0: there was no value
    Column("value", Text, nullable=False),  # JSON
    Column("problem", Text, nullable=False),  # how it misses the schema
    *columns_of_source(),
    Column("at", BigInteger, nullable=False),
    Column("state", Text, nullable=False),  # pending | accepted | dropped | expired
    Column("decided_by", Text, nullable=False),  # tenant|issuer|subject, or empty
    Column("decided", BigInteger),
    Column("approval_id", Text, nullable=False, server_default=""),  # of the question to people, or empty
    Column("expires", BigInteger),  # when the question expires, and the value is dropped
    Index("state_held_pending", "tenant", "at", **PENDING),
    Index("state_held_at", "at"),
)

subjects = Table(
    "subjects",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("subject", Text, primary_key=True),  # customer:42
    Column("version", BigInteger, nullable=False),  # grows with each change of a fact about the subject
    Column("updated", BigInteger, nullable=False),
)
