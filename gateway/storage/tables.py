"""Rows of the gateway's memory: tasks and their events, who runs them, whom to notify, and what is spent of budgets.

A reference has a foreign key, which deletes with what it belongs to, or a comment that says why it has none. References into the tables of
`registry` and `policies` have none: those packages know nothing of this one, and registrations, grants and the audit have a retention of
their own (docs/decisions/foreign-keys.md).
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, ForeignKeyConstraint, Index, MetaData, Table, Text, false, text

metadata = MetaData()


def _partial_index(condition: str) -> dict[str, Any]:
    """Returns the arguments of a partial index, which costs only rows that meet the condition."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


def _deleted_with(parent: Table, columns: Sequence[str], name: str) -> ForeignKeyConstraint:
    """A foreign key to the primary key of `parent`, whose deletion deletes the rows that refer to it."""
    return ForeignKeyConstraint(columns, list(parent.primary_key.columns), name=name, ondelete="CASCADE")


RUNNING = _partial_index("runner <> ''")
ASKING = _partial_index("state = 'TASK_STATE_INPUT_REQUIRED'")
AWAITING = _partial_index("state = 'TASK_STATE_AUTH_REQUIRED'")
KEYED = _partial_index("idempotency_key IS NOT NULL")
LIVE = _partial_index("live = 1")
PENDING = _partial_index("state = 'pending'")
DEAD = _partial_index("state = 'dead'")
DUE = _partial_index("wake_at IS NOT NULL")
UNREAD = _partial_index("received > seen")
TIMED = _partial_index("next_at IS NOT NULL")

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
    Index("tasks_owner", "tenant", "owner", "updated"),
    Index("tasks_state", "tenant", "owner", "agent", "state", "updated"),
    Index("tasks_context", "tenant", "owner", "context_id", "agent"),
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
    _deleted_with(tasks, ("tenant", "task_id"), "task_prompts_task"),
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
    _deleted_with(processes, ("holder",), "session_locks_holder"),
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
    _deleted_with(tasks, ("tenant", "task_id"), "push_configs_task"),
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
    _deleted_with(push_configs, ("tenant", "task_id", "config_id"), "deliveries_config"),
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
    _deleted_with(mcp_tasks, ("task_id",), "mcp_questions_task"),
)

task_answers = Table(
    "task_answers",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("task_id", Text, primary_key=True),
    Column("question", Text, primary_key=True),
    Column("body", Text, nullable=False),  # JSON: the answer, until all answers for the agent have arrived
    _deleted_with(tasks, ("tenant", "task_id"), "task_answers_task"),
)

budgets = Table(
    "budgets",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("day", Text, primary_key=True),  # 2026-11-21, in UTC
    Column("name", Text, primary_key=True),  # JSON: who, what, subject, callee
    Column("calls", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),  # millionths
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

workflow_versions = Table(
    "workflow_versions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("hash", Text, primary_key=True),  # sha256 of the document, in hex
    Column("document", Text, nullable=False),  # YAML or JSON, as its author wrote it
    Column("author", Text, nullable=False),  # tenant|issuer|subject
    Column("created", BigInteger, nullable=False),
)

workflow_runs = Table(
    "workflow_runs",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),  # of the task that the run is
    Column("workflow", Text, nullable=False),
    Column("version", Text, nullable=False),  # hash of `workflow_versions`; no key: a version outlives its workflow
    Column("input", Text, nullable=False),  # JSON
    Column("started", BigInteger, nullable=False),
    Column("wake_at", BigInteger),  # when a suspended run goes on by itself
    Column("note", Text, nullable=False),  # where it stands, in words
    Column("ends_at", BigInteger),  # of a suspended run: when its deadline ends it, even while it is paused
    Column("paused_at", BigInteger),  # since when it is to start no further step
    Column("paused_by", Text, nullable=False),  # tenant|issuer|subject, or empty
    Column("fault", Text, nullable=False),  # JSON of the error that it failed with, or empty
    Column("origin_id", Text, nullable=False),  # the run whose journal it began with, or empty; no key: runs have a retention of their own
    Column("origin_kind", Text, nullable=False),  # redrive | fork, or empty
    Column("origin_step", Text, nullable=False),  # JSON pointer of the first task that it ran itself, or empty
    Column("inputs", Text, nullable=False),  # JSON object: pointer of a task -> the input that a fork gave it
    _deleted_with(tasks, ("tenant", "id"), "workflow_runs_task"),
    Index("workflow_runs_due", "wake_at", **DUE),
    Index("workflow_runs_origin", "tenant", "origin_id"),
)

workflow_steps = Table(
    "workflow_steps",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),  # pointer:visits:attempts of the step, shortened where it is long
    Column("seq", BigInteger, nullable=False),  # counts the steps of the run in the order of their commits
    Column("kind", Text, nullable=False),  # call | record | due | limit
    Column("step", Text, nullable=False),  # JSON pointer of the task in the document
    Column("visits", Text, nullable=False),  # how often each scope around it was entered before, with dots between
    Column("attempts", Text, nullable=False),  # the retries of the `try` tasks around it, with dots between
    Column("task_id", Text, nullable=False),  # the task that the step caused, or empty; no key: tasks have a retention of their own
    Column("started", BigInteger, nullable=False),
    Column("ended", BigInteger, nullable=False),
    Column("result", Text, nullable=False),  # JSON: {"value": …}, {"fault": …} or {"reference": {"digest": …, "size": …}}
    Column("target", Text, nullable=False),  # whom the step called, in words
    Column("decision_id", Text, nullable=False),  # of the ruling on the call, or empty
    Column("input", Text, nullable=False),  # JSON of what the step sent: {"value": …} or {"reference": …}
    Column("input_digest", Text, nullable=False),  # sha256 of its canonical JSON, or empty
    Column("output_digest", Text, nullable=False),
    Column("usage", Text, nullable=False),  # JSON of what the agent reported as its usage, or empty where it is unknown
    _deleted_with(workflow_runs, ("tenant", "run_id"), "workflow_steps_run"),
    Index("workflow_steps_order", "tenant", "run_id", "seq"),
)

workflow_values = Table(
    "workflow_values",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("digest", Text, primary_key=True),  # sha256 of the canonical JSON, in hex
    Column("size", BigInteger, nullable=False),  # bytes
    Column("value", Text, nullable=False),  # JSON
    _deleted_with(workflow_runs, ("tenant", "run_id"), "workflow_values_run"),
)

workflow_waits = Table(
    "workflow_waits",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("task_id", Text, primary_key=True),  # a task of the run that waits; the run goes on when that task moves
    _deleted_with(workflow_runs, ("tenant", "run_id"), "workflow_waits_run"),
)

workflow_checkpoints = Table(
    "workflow_checkpoints",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("step", Text, nullable=False),  # JSON pointer of the task in the document
    Column("workflow", Text, nullable=False),
    Column("owner", Text, nullable=False),  # tenant|issuer|subject of whose run it is
    Column("kind", Text, nullable=False),  # approve | choose | form | signal
    Column("prompt", Text, nullable=False),
    Column("schema", Text, nullable=False),  # JSON Schema of the answer
    Column("subject", Text, nullable=False),  # JSON: what the question is about; empty for nothing
    Column("state", Text, nullable=False),  # pending | answered | expired
    Column("answer", Text, nullable=False),  # JSON; empty while there is none
    Column("answered_by", Text, nullable=False),
    Column("answer_key", Text, nullable=False),  # the idempotency key of the signal that answered, or empty
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("answered", BigInteger),
    _deleted_with(workflow_runs, ("tenant", "run_id"), "workflow_checkpoints_run"),
    Index("workflow_checkpoints_of_run", "tenant", "run_id"),
    Index("workflow_checkpoints_pending", "tenant", "created", **PENDING),
)

workflow_events = Table(
    "workflow_events",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("id", Text, primary_key=True),  # CloudEvents 1.0: source and id together name an event
    Column("type", Text, nullable=False),
    Column("sender", Text, nullable=False),  # tenant|issuer|subject of whoever's rights sent it
    Column("at", BigInteger, nullable=False),  # when it was received
    Column("event", Text, nullable=False),  # JSON, the structured form
    Index("workflow_events_at", "at"),
)

workflow_listens = Table(
    "workflow_listens",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),  # of the listening step
    Column("filters", Text, nullable=False),  # JSON: for each filter the attributes that are no expressions
    Column("received", BigInteger, nullable=False),  # how many events it was given
    Column("seen", BigInteger, nullable=False),  # how many of them the run has looked at
    _deleted_with(workflow_runs, ("tenant", "run_id"), "workflow_listens_run"),
    Index("workflow_listens_unread", "tenant", "run_id", **UNREAD),
)

workflow_listen_types = Table(
    "workflow_listen_types",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("type", Text, primary_key=True),  # of events; empty for every type
    Column("run_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    _deleted_with(workflow_listens, ("tenant", "run_id", "key"), "workflow_listen_types_listen"),
)

workflow_received = Table(
    "workflow_received",
    metadata,
    *(Column(name, Text, primary_key=True) for name in ("tenant", "run_id", "key")),
    Column("number", BigInteger, primary_key=True),  # 1 for the first event
    Column("event", Text, nullable=False),  # JSON; a copy, since events have a retention of their own
    _deleted_with(workflow_listens, ("tenant", "run_id", "key"), "workflow_received_listen"),
)

workflow_schedules = Table(
    "workflow_schedules",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("workflow", Text, primary_key=True),
    Column("terms", Text, nullable=False),  # JSON: when it starts, as which service, how many at once
    Column("next_at", BigInteger),  # when time starts the next run
    Column("last_run", Text, nullable=False),  # the task of the run that was started last, or empty
    Column("claimed", BigInteger, nullable=False),  # until when one process alone starts its runs
    Index("workflow_schedules_due", "next_at", **TIMED),
)

workflow_trigger_types = Table(
    "workflow_trigger_types",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("type", Text, primary_key=True),  # of events that start runs; empty for every type
    Column("workflow", Text, primary_key=True),
    _deleted_with(workflow_schedules, ("tenant", "workflow"), "workflow_trigger_types_schedule"),
)

workflow_starts = Table(
    "workflow_starts",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("workflow", Text, primary_key=True),
    Column("id", Text, primary_key=True),  # the idempotency key of the run's start
    Column("created", BigInteger, nullable=False),
    Column("event", Text, nullable=False),  # JSON of the event that starts the run; empty where time does
    _deleted_with(workflow_schedules, ("tenant", "workflow"), "workflow_starts_schedule"),
)
