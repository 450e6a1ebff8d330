"""Rows of the gateway's memory: tasks and their events, who runs them, whom to notify, and what is spent of budgets.

A reference has a foreign key, which deletes with what it belongs to, or a comment that says why it has none. References into the tables of
`registry` and `policies` have none: those packages know nothing of this one, and registrations, grants and the audit have a retention of
their own (docs/decisions/foreign-keys.md).
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, Boolean, Column, ForeignKeyConstraint, Index, MetaData, Table, Text, false, text

from adapters.task import INTERRUPTED, TERMINAL

metadata = MetaData()
ENDED_STATES: Final = tuple(state.value for state in TERMINAL)  # of tasks, as the column `state` has them
WAITING_STATES: Final = tuple(state.value for state in INTERRUPTED)


def partial_index(condition: str) -> dict[str, Any]:
    """Returns the arguments of a partial index, which costs only rows that meet the condition."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


def deleted_with(parent: Table, columns: Sequence[str], name: str) -> ForeignKeyConstraint:
    """A foreign key to the primary key of `parent`, whose deletion deletes the rows that refer to it."""
    return ForeignKeyConstraint(columns, list(parent.primary_key.columns), name=name, ondelete="CASCADE")


IN_BYTE_ORDER: Final = Text().with_variant(Text(collation="C"), "postgresql")  # a text by which pages are ordered, as Python orders bytes
RUNNING = partial_index("runner <> ''")
ASKING = partial_index("state = 'TASK_STATE_INPUT_REQUIRED'")
AWAITING = partial_index("state = 'TASK_STATE_AUTH_REQUIRED'")
KEYED = partial_index("idempotency_key IS NOT NULL")
LIVE = partial_index("live = 1")
PENDING = partial_index("state = 'pending'")
DEAD = partial_index("state = 'dead'")
UNUSUAL: Final = "state <> 'TASK_STATE_COMPLETED'"  # of tasks: a query that repeats this condition may use the indexes of it
UNUSUAL_ONLY = partial_index(UNUSUAL)

tasks = Table(
    "tasks",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),  # tenant|issuer|subject
    Column("context_id", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("state", Text, nullable=False),  # TASK_STATE_…
    Column("parent_id", Text, nullable=False),  # no key: may stand for an agent's work without a task (policies/callers.py)
    Column("txn", Text, nullable=False),
    Column("decision_id", Text, nullable=False),
    Column("grant_id", Text, nullable=False),
    Column("runner", Text, nullable=False),  # the process whose turn is under way, or empty; no key: a lost task names one that is gone
    Column("last_seq", BigInteger, nullable=False),
    Column("vendor_ref", Text, nullable=False),  # JSON: the agent's own ids
    Column("idempotency_key", Text),
    Column("request_digest", Text, nullable=False),
    Column("trace", Text, nullable=False, server_default=""),  # the traceparent of the request that began the task
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    Column("awaited_connection_id", Text),  # of `connections`; no key: a page may go while the task that names it is written
    Index("tasks_owner", "tenant", "owner", "updated", "agent", "state"),  # each index costs a call about 1 %: few, and with more columns
    Index("tasks_updated", "tenant", "updated", "agent", "state"),
    Index("tasks_state", "tenant", "state", "updated", "owner", "agent", **UNUSUAL_ONLY),
    Index("tasks_owner_state", "tenant", "owner", "state", "updated", "agent", **UNUSUAL_ONLY),
    Index("tasks_context", "tenant", "context_id", "owner", "agent"),
    Index("tasks_txn", "tenant", "txn"),
    Index("tasks_runner", "runner", **RUNNING),
    Index("tasks_asking", "tenant", "agent", **ASKING),
    Index("tasks_awaiting", "awaited_connection_id", **AWAITING),
    Index("tasks_idempotency", "tenant", "owner", "agent", "idempotency_key", unique=True, **KEYED),
)

task_events = Table(
    "task_events",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("task_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),  # status | message | artifact | withheld
    Column("body", Text, nullable=False),  # A2A 1.0 JSON
    Column("append", Boolean, nullable=False, server_default=false()),  # an artifact adds to the artifact of that id
    Column("last_chunk", Boolean, nullable=False, server_default=false()),  # an artifact is complete
    Column("replied", Boolean, nullable=False, server_default=false()),  # a status holds a Message that is the agent's whole answer
    Column("metadata", Text),  # JSON: of the update that a status or an artifact is shown as
    # no key to `tasks`: it more than doubles what a call costs PostgreSQL (docs/decisions/foreign-keys.md)
)

task_prompts = Table(
    "task_prompts",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("task_id", Text, primary_key=True),
    Column("prompt_digest", Text, primary_key=True),  # sha256 of the id of a prompt that the task waits for
    deleted_with(tasks, ("tenant", "task_id"), "task_prompts_task"),
    Index("task_prompts_digest", "tenant", "prompt_digest"),
)

processes = Table(
    "processes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("started", BigInteger, nullable=False),
    Column("seen", BigInteger, nullable=False),
)

session_locks = Table(
    "session_locks",
    metadata,
    Column("id", Text, primary_key=True),  # digest of a vendor's session, in which one turn runs at a time
    Column("holder", Text, nullable=False),
    Column("until", BigInteger, nullable=False),
    deleted_with(processes, ("holder",), "session_locks_holder"),
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
    Column("secrets", Text, nullable=False),  # JSON: token, scheme, credentials; encrypted
    Column("version", Text, nullable=False),  # the A2A version of its creator
    Column("cursor", BigInteger, nullable=False),  # the last event of the task for which deliveries exist
    Column("live", BigInteger, nullable=False),  # 1 until deliveries exist for the task's last event
    Column("created", BigInteger, nullable=False),
    deleted_with(tasks, ("tenant", "task_id"), "push_configs_task"),
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
    Column("next_at", BigInteger, nullable=False),  # earliest next attempt; during an attempt, the end of its lease
    Column("state", Text, nullable=False),  # pending | dead; successful ones are deleted
    Column("reason", Text, nullable=False),  # why the last attempt failed
    Column("created", BigInteger, nullable=False),
    Column("updated", BigInteger, nullable=False),
    deleted_with(push_configs, ("tenant", "task_id", "config_id"), "deliveries_config"),
    Index("deliveries_due", "next_at", **PENDING),
    Index("deliveries_dead", "tenant", "id", **DEAD),
)

mcp_sessions = Table(
    "mcp_sessions",
    metadata,
    Column("id", Text, primary_key=True),  # sha256 of the session id
    Column("holder", Text, nullable=False),  # whose it is, and which agent's
    Column("resource", Text, nullable=False),  # the path at which it was opened
    Column("version", Text, nullable=False),
    Column("capabilities", Text, nullable=False),  # JSON: what the client declared
    Column("level", Text, nullable=False),  # of log messages; empty: not set
    Column("uris", Text, nullable=False),  # JSON: subscribed resources
    Column("created", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
    Column("streamer", Text),  # the process that has its GET stream, where there are several; no key: read as lost when that is gone
    Column("holds", Text),  # JSON: each resource that is followed there, and whether its server tells of its changes
    Index("mcp_sessions_holder", "holder", "used"),
    Index("mcp_sessions_used", "used"),
    Index("mcp_sessions_streamer", "streamer"),
)

mcp_events = Table(
    "mcp_events",
    metadata,
    Column("session", Text, primary_key=True),  # no key: a stream's last events may come after its session was deleted
    Column("stream", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),  # 1 for the last message of the stream
    Column("body", Text, nullable=False),  # one JSON-RPC message
    Index("mcp_events_at", "at"),
)

mail = Table(
    "mail",
    metadata,
    Column("address", Text, primary_key=True),
    Column("body", Text, nullable=False),
    Column("until", BigInteger, nullable=False),  # expiry, in microseconds
    Index("mail_until", "until"),
)

mcp_tasks = Table(
    "mcp_tasks",
    metadata,
    Column("id", Text, primary_key=True),  # the id that clients see
    Column("tenant", Text, nullable=False),
    Column("holder", Text, nullable=False),  # whose it is, and which agent's
    Column("server", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("own", Text, nullable=False),  # the server's own task id
    Column("capabilities", Text, nullable=False, server_default="{}"),  # JSON: the client capabilities that the server was told
    Column("arguments", Text),  # JSON: of the call; NULL if unknown or too long
    Column("created", BigInteger, nullable=False),
    Index("mcp_tasks_created", "created"),
)

mcp_questions = Table(
    "mcp_questions",
    metadata,
    Column("task_id", Text, primary_key=True),  # of mcp_tasks
    Column("question", Text, primary_key=True),
    Column("process", Text, nullable=False),  # that waits for the answer; no key: the question stays when that is gone
    Column("body", Text, nullable=False),  # JSON: method and parameters
    deleted_with(mcp_tasks, ("task_id",), "mcp_questions_task"),
)

task_answers = Table(
    "task_answers",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("task_id", Text, primary_key=True),
    Column("question", Text, primary_key=True),
    Column("body", Text, nullable=False),  # JSON: the answer, until all answers for the agent have arrived
    deleted_with(tasks, ("tenant", "task_id"), "task_answers_task"),
)

budgets = Table(
    "budgets",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("day", Text, primary_key=True),  # 2026-11-21, in UTC
    Column("name", Text, primary_key=True),  # JSON: who, what, subject, callee
    Column("calls", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),  # millionths
    Column("reserved", BigInteger, nullable=False, server_default="0"),  # millionths, of calls that have not ended
)

run_tasks = Table(
    "run_tasks",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("task_id", Text, primary_key=True),  # that a step of a run has caused
    Column("run_id", Text, nullable=False),  # no key: a run that this one does not wait for may end and go before the task
    Column("step", Text, nullable=False),  # JSON pointer of the task in the document
    deleted_with(tasks, ("tenant", "task_id"), "run_tasks_task"),
)

run_budgets = Table(
    "run_budgets",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("name", Text, primary_key=True),  # JSON: who, what, subject, callee
    Column("cost", BigInteger, nullable=False),  # millionths
    Column("reserved", BigInteger, nullable=False),  # millionths, of calls that have not ended
    Column("most", BigInteger, nullable=False),  # millionths that the budget had at its last reservation
    deleted_with(tasks, ("tenant", "run_id"), "run_budgets_task"),
)

reservations = Table(
    "reservations",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),  # the decision of the call
    Column("task_id", Text, nullable=False),  # of the turn; empty for a tool call without a task; no key: it is settled without the task
    Column("day", Text, nullable=False),  # of the budgets that it is taken from
    Column("shares", Text, nullable=False),  # JSON: the name of each budget, and what of it is reserved
    Column("entry", Text, nullable=False),  # JSON: the cost entry of the call, without an amount
    Column("amount", BigInteger, nullable=False),  # millionths
    Column("until", BigInteger, nullable=False),  # when it expires, in microseconds since 1970
    Column("charged_at", BigInteger),  # when it was charged because no cost was known; NULL: it is still reserved
    Index("reservations_task", "tenant", "task_id"),
)

costs = Table(
    "costs",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),  # a task; of a tool call without a task, its decision; no key: costs outlive both
    Column("seq", BigInteger, primary_key=True),  # of the task's event that ended the turn; 0 for a tool call
    Column("task_id", Text, nullable=False),  # the task that the cost belongs to: of the turn, or of the agent that called a tool
    Column("at", BigInteger, nullable=False),
    Column("owner", Text, nullable=False),  # tenant|issuer|subject
    Column("actor", Text, nullable=False),  # the agent that called, or empty
    Column("target", Text, nullable=False),
    Column("tool", Text, nullable=False),
    Column("workflow", Text, nullable=False),  # the outermost in the chain, or empty
    Column("txn", Text, nullable=False),
    Column("amount", BigInteger),  # millionths of the currency; NULL: unknown
    Column("model", Text, nullable=False),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("quarantined", Text, nullable=False, server_default=""),  # why the report is not believed; empty: it is, or there is none
    Column("charged", BigInteger, nullable=False, server_default="0"),  # what budgets were charged, in millionths
    Column("run_id", Text, nullable=False, server_default=""),  # the outermost run that caused it, or empty; no key: costs outlive runs
    Column("step", Text, nullable=False, server_default=""),  # JSON pointer of the step of that run, or empty
    Index("costs_at", "tenant", "at"),
    Index("costs_old", "at"),
    Index("costs_owner", "tenant", "owner", "at"),
    Index("costs_txn", "tenant", "txn"),
    Index("costs_target", "tenant", "target", "tool", "at"),
)

cost_days, cost_hours = (
    Table(
        name,
        metadata,
        Column("tenant", Text, primary_key=True),
        Column(unit, BigInteger, primary_key=True, autoincrement=False),  # since 1970, in UTC; one that is over
        Column("summed", BigInteger, nullable=False),  # 0: since `begun` a process adds it up; 1: it is; 2: for good, as costs may be gone
        Column("begun", BigInteger, nullable=False),
    )
    for name, unit in (("cost_days", "day"), ("cost_hours", "hour"))
)

cost_sums, cost_hour_sums = (
    Table(
        name,
        metadata,
        Column("tenant", Text, primary_key=True),
        Column(unit, BigInteger, primary_key=True, autoincrement=False),
        Column("dimension", Text, primary_key=True),  # day | agent | tool | workflow
        Column("owner", IN_BYTE_ORDER, primary_key=True),  # tenant|issuer|subject; empty: of everybody
        Column("name", IN_BYTE_ORDER, primary_key=True),  # of the agent, tool or workflow; empty of a day
        *(Column(figure, BigInteger, nullable=False) for figure in ("amount", "priced", "unpriced", "quarantined")),
        *(Column(figure, BigInteger, nullable=False) for figure in ("input_tokens", "output_tokens", "charged")),
        deleted_with(spans, ("tenant", unit), f"{name}_{unit}"),
        sqlite_with_rowid=False,  # the rows lie in the order of the key, in which reports read them
    )
    for name, unit, spans in (("cost_sums", "day", cost_days), ("cost_hour_sums", "hour", cost_hours))
)

connections = Table(
    "connections",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("owner", Text, nullable=False),  # tenant|issuer|subject of the user who is asked
    Column("consent", Text, nullable=False),  # digest of the consent, so that an equal one shares its page
    Column("state", Text, nullable=False),  # digest; empty after the callback
    Column("browser", Text, nullable=False),  # digest of the cookie of the browser that may continue
    Column("kek_id", Text, nullable=False),  # key of `body`: the consent, its state and verifier, encrypted
    Column("wrapped", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("given", BigInteger, nullable=False),  # 1: the credential is stored
    Index("connections_owner", "owner", "until"),
    Index("connections_state", "state"),
    Index("connections_until", "until"),
)

notices = Table(
    "notices",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # in the order of the commits, see gateway/tasks/notices/feed.py
    Column("tenant", Text, nullable=False),
    Column("kind", Text, nullable=False),  # checkpoint.opened | approval.requested | …
    Column("subject", Text, nullable=False),  # id of the checkpoint or approval
    Column("task_id", Text, nullable=False),
    Column("owner", Text, nullable=False),  # tenant|issuer|subject
    Column("body", Text, nullable=False),  # JSON
    Column("at", BigInteger, nullable=False),
    Index("notices_at", "at"),
)

schema_bounds = Table(  # one row: HEAD of the oldest code that works on this schema
    "schema_bounds",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("usable_from", Text, nullable=False),
)

notice_webhooks = Table(
    "notice_webhooks",
    metadata,
    Column("id", Text, primary_key=True),  # the beginning of the sha256 of the URL, in hex
    Column("cursor", BigInteger, nullable=False),  # the last notice that the webhook has
    Column("attempts", BigInteger, nullable=False),  # at the next one
    Column("next_at", BigInteger, nullable=False),  # earliest next attempt; while a process sends, the end of its lease
)

legal_holds = Table(
    "legal_holds",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # tenant | person | task
    Column(
        "name", Text, nullable=False
    ),  # tenant|issuer|subject, or the task's id; empty for the tenant; no key: a held task is never deleted
    Column("reason", Text, nullable=False),  # as the operator wrote it
    Column("placed_by", Text, nullable=False),  # tenant|issuer|subject
    Column("placed_at", BigInteger, nullable=False),
    Index("legal_holds_target", "tenant", "kind", "name", unique=True),
)
