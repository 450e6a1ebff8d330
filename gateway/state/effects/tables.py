"""Tables of what agents did to subjects, and of what they were refused. Tasks and decisions have a retention of their own: no keys."""

from sqlalchemy import BigInteger, Column, Index, Table, Text

from gateway.storage.tables import metadata, partial_index

CLAIMED = partial_index("claim_id <> ''")
NOT_FAILED = partial_index("state <> 'failed'")
OF_TASKS = partial_index("own_task = 1")
ENDED = partial_index("state <> 'under-way'")
UNDER_WAY = partial_index("state = 'under-way'")

subject_effects = Table(
    "subject_effects",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),  # of the decision that allowed it
    Column("subject", Text, nullable=False),  # customer:42
    Column("effect", Text, nullable=False),  # outbound-email
    Column("purpose", Text, nullable=False),
    Column("target", Text, nullable=False),  # the permission of the call, such as tool:mail.send
    Column("owner", Text, nullable=False),  # tenant|issuer|subject of the person for whom it was done
    Column("agent", Text, nullable=False),  # the last of the chain; empty for the person
    Column("chain", Text, nullable=False),  # JSON array of the agents of the chain, the first called first
    Column("txn", Text, nullable=False),
    Column("task_id", Text, nullable=False),  # in which it was done
    Column("own_task", BigInteger, nullable=False),  # 1: it lasts as long as the task `task_id`; 0: until `until` at the latest
    Column("claim_id", Text, nullable=False),  # the claim that lasts as long as it, or empty
    Column("state", Text, nullable=False),  # under-way | done | failed | unknown; of an own task: what the task says
    Column("at", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),  # from then on it is not under way any more
    Index("subject_effects_at", "tenant", "subject", "at"),
    Index("subject_effects_open", "tenant", "subject", **UNDER_WAY),
    Index("subject_effects_claim", "tenant", "claim_id", **CLAIMED),
    Index("subject_effects_last", "tenant", "subject", "effect", "at", **NOT_FAILED),
    Index("subject_effects_agent", "tenant", "subject", "agent", "at", **NOT_FAILED),
    Index("subject_effects_tasks", "tenant", "subject", **OF_TASKS),
    Index("subject_effects_old", "at", **ENDED),  # not of all, so that no query for the newest effect of a subject goes by it
)

subject_conflicts = Table(
    "subject_conflicts",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("effect", Text, primary_key=True),
    Column("owner", Text, primary_key=True),
    Column("agent", Text, primary_key=True),
    Column("reason_id", Text, primary_key=True),
    Column("target", Text, nullable=False),
    Column("policies", Text, nullable=False),  # JSON array of @ids
    Column("facts", Text, nullable=False),  # JSON array of the facts that the last refusal rests on
    Column("decision_id", Text, nullable=False),  # of the last refusal
    Column("count", BigInteger, nullable=False),
    Column("first_at", BigInteger, nullable=False),
    Column("last_at", BigInteger, nullable=False),
    Index("subject_conflicts_last", "tenant", "last_at"),
    Index("subject_conflicts_old", "last_at"),
)
