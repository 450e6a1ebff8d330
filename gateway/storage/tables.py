"""Rows of the gateway's memory: tasks and their events, who runs them, whom to notify, and what is spent of budgets."""

from typing import Any

from sqlalchemy import BigInteger, Column, Index, MetaData, Table, Text, text

metadata = MetaData()


def _partial_index(condition: str) -> dict[str, Any]:
    """For an index of few rows among many, which costs the other rows nothing."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


RUNNING = _partial_index("runner <> ''")
ASKING = _partial_index("state = 'TASK_STATE_INPUT_REQUIRED'")
AWAITING = _partial_index("state = 'TASK_STATE_AUTH_REQUIRED'")
KEYED = _partial_index("idempotency_key IS NOT NULL")
LIVE = _partial_index("live = 1")
PENDING = _partial_index("state = 'pending'")
DEAD = _partial_index("state = 'dead'")

tasks = Table(
    "tasks",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),  # tenant|issuer|subject
    Column("context_id", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("state", Text, nullable=False),  # TASK_STATE_…
    Column("parent_id", Text, nullable=False),
    Column("txn", Text, nullable=False),
    Column("decision_id", Text, nullable=False),
    Column("grant_id", Text, nullable=False),
    Column("runner", Text, nullable=False),  # the process whose turn is under way, or empty
    Column("last_seq", BigInteger, nullable=False),
    Column("vendor_ref", Text, nullable=False),  # JSON: the agent's own ids
    Column("idempotency_key", Text),
    Column("request_digest", Text, nullable=False),
    Column("trace", Text, nullable=False, server_default=""),  # the traceparent of the request that began it
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Index("tasks_owner", "tenant", "owner", "updated"),
    Index("tasks_state", "tenant", "owner", "agent", "state", "updated"),
    Index("tasks_context", "tenant", "owner", "context_id", "agent"),
    Index("tasks_txn", "tenant", "txn"),
    Index("tasks_runner", "runner", **RUNNING),
    Index("tasks_asking", "tenant", "agent", **ASKING),
    Index("tasks_awaiting", "tenant", "owner", **AWAITING),
    Index("tasks_idempotency", "tenant", "owner", "agent", "idempotency_key", unique=True, **KEYED),
)

task_events = Table(
    "task_events",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("task_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),  # status | message | artifact | decision | call
    Column("body", Text, nullable=False),  # A2A 1.0 JSON
)

processes = Table(
    "processes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("started", BigInteger, nullable=False),
    Column("seen", BigInteger, nullable=False),
)

push_configs = Table(
    "push_configs",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("task_id", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),  # tenant|issuer|subject
    Column("agent", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("secrets", Text, nullable=False),  # JSON: token, scheme, credentials; read by the sender alone
    Column("version", Text, nullable=False),  # of A2A, as its creator speaks it
    Column("cursor", BigInteger, nullable=False),  # the last event of the task that has its delivery
    Column("live", BigInteger, nullable=False),  # 1 until the task's last event has its delivery
    Column("created", BigInteger, nullable=False),
    Index("push_configs_live", "tenant", "task_id", **LIVE),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("task_id", Text, primary_key=True),
    Column("config_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),  # the event of the task
    Column("id", Text, nullable=False, unique=True),
    Column("attempts", BigInteger, nullable=False),
    Column("next_at", BigInteger, nullable=False),  # not before; while it is under way, when others may take it up
    Column("state", Text, nullable=False),  # pending | dead; one that arrived is no more
    Column("reason", Text, nullable=False),  # why the last attempt failed
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Index("deliveries_due", "next_at", **PENDING),
    Index("deliveries_dead", "tenant", "id", **DEAD),
)

mcp_sessions = Table(
    "mcp_sessions",
    metadata,
    Column("id", Text, primary_key=True),  # sha256 of what the client shows
    Column("holder", Text, nullable=False),  # whose it is, and which agent's
    Column("resource", Text, nullable=False),  # the path that it was opened at
    Column("version", Text, nullable=False),
    Column("capabilities", Text, nullable=False),  # JSON: what the client declared
    Column("level", Text, nullable=False),  # of log messages; empty: none was set
    Column("uris", Text, nullable=False),  # JSON: resources that it subscribed to
    Column("created", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
    Column("streamer", Text),  # the process that has its GET stream, where there are several processes
    Column("holds", Text),  # JSON: each resource that is followed there, and whether its server tells of its changes
    Index("mcp_sessions_holder", "holder", "used"),
    Index("mcp_sessions_used", "used"),
    Index("mcp_sessions_streamer", "streamer"),
)

mcp_events = Table(
    "mcp_events",
    metadata,
    Column("session", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),  # 1 where the stream ends with it
    Column("body", Text, nullable=False),  # one JSON-RPC message
    Index("mcp_events_at", "at"),
)

mail = Table(
    "mail",
    metadata,
    Column("address", Text, primary_key=True),
    Column("body", Text, nullable=False),
    Column("until", BigInteger, nullable=False),  # read by nobody after that
    Index("mail_until", "until"),
)

mcp_tasks = Table(
    "mcp_tasks",
    metadata,
    Column("id", Text, primary_key=True),  # as clients know it
    Column("tenant", Text, nullable=False),
    Column("holder", Text, nullable=False),  # whose it is, and which agent's
    Column("server", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("own", Text, nullable=False),  # the server's id of it
    Column("capabilities", Text, nullable=False, server_default="{}"),  # JSON: what its server was told that the client can be asked
    Column("arguments", Text),  # JSON: of the call; NULL where they are not known, or too long
    Column("created", BigInteger, nullable=False),
    Index("mcp_tasks_created", "created"),
)

mcp_questions = Table(
    "mcp_questions",
    metadata,
    Column("task_id", Text, primary_key=True),  # of mcp_tasks
    Column("question", Text, primary_key=True),
    Column("process", Text, nullable=False),  # that waits for the answer
    Column("body", Text, nullable=False),  # JSON: method and parameters
)

task_answers = Table(
    "task_answers",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("task_id", Text, primary_key=True),
    Column("question", Text, primary_key=True),
    Column("body", Text, nullable=False),  # JSON: the answer, until the others are there that the agent waits for
)

budgets = Table(
    "budgets",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("day", Text, primary_key=True),  # 2026-11-21, in UTC
    Column("name", Text, primary_key=True),  # JSON: whose, by which limit
    Column("calls", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),  # millionths
)

connections = Table(
    "connections",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("owner", Text, nullable=False),  # tenant|issuer|subject of the person who is asked
    Column("consent", Text, nullable=False),  # digest of what is asked, so that the same is asked once
    Column("state", Text, nullable=False),  # digest; empty when somebody came back with it
    Column("browser", Text, nullable=False),  # digest of the cookie of the one that may go on
    Column("kek_id", Text, nullable=False),  # the consent, its state and verifier, sealed
    Column("wrapped", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("given", BigInteger, nullable=False),  # 1: the credential is kept
    Index("connections_owner", "owner", "until"),
    Index("connections_state", "state"),
    Index("connections_until", "until"),
)
