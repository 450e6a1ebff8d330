"""Tables of workflows: versions, runs with their journal, checkpoints with their relaxations, events and schedules."""

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Table, Text

from gateway.storage.tables import PENDING, deleted_with, metadata, partial_index, tasks

DUE = partial_index("wake_at IS NOT NULL")
ENDING = partial_index("ends_at IS NOT NULL")
UNREAD = partial_index("received > seen")
QUEUED = partial_index("queued_at IS NOT NULL")
UNNUMBERED = partial_index("seq IS NULL")
TIMED = partial_index("next_at IS NOT NULL")

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
    Column("requesters", Text, nullable=False),  # JSON array of tenant|issuer|subject: who brought about a run of a service; or empty
    Column("waits_for_sign_in", BigInteger, nullable=False, server_default="0"),  # 1: until the owner's roles are vouched for again
    Column("queued_at", BigInteger),  # since when it waits for its turn, where the document limits runs at once
    Column("runs_max", BigInteger, nullable=False, server_default="0"),  # that limit, of a run that waits for its turn
    Column("admitted_at", BigInteger),  # since when it has one of the places
    deleted_with(tasks, ("tenant", "id"), "workflow_runs_task"),
    Index("workflow_runs_due", "wake_at", **DUE),
    Index("workflow_runs_queued", "tenant", "workflow", "queued_at", **QUEUED),
    Index("workflow_runs_of_workflow", "tenant", "workflow", "started"),
    Index("workflow_runs_started", "tenant", "started"),
    Index("workflow_runs_ending", "ends_at", **ENDING),
    Index("workflow_runs_origin", "tenant", "origin_id"),
)

IS_TASK_OF_RUN: Final = (tasks.c.tenant == workflow_runs.c.tenant) & (tasks.c.id == workflow_runs.c.id)

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
    deleted_with(workflow_runs, ("tenant", "run_id"), "workflow_steps_run"),
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
    deleted_with(workflow_runs, ("tenant", "run_id"), "workflow_values_run"),
)

workflow_waits = Table(
    "workflow_waits",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("task_id", Text, primary_key=True),  # a task of the run that waits; the run goes on when that task moves
    Column("state", Text, nullable=False),  # of that task when the run began to wait for it
    deleted_with(workflow_runs, ("tenant", "run_id"), "workflow_waits_run"),
)

workflow_claims = Table(
    "workflow_claims",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),  # of the task that holds the claim while it lasts
    Column("subject", Text, nullable=False),
    Column("claim_id", Text, nullable=False),  # of `claims`, which has a retention of its own; empty while the task waits
    Column("token", BigInteger, nullable=False),
    Column("lease", BigInteger, nullable=False),  # microseconds
    Column("version", BigInteger, nullable=False),  # of the subject when the claim was refused
    Column("state", Text, nullable=False),  # waiting | held | lost | told: lost, and the run was told
    deleted_with(workflow_runs, ("tenant", "run_id"), "workflow_claims_run"),
    Index("workflow_claims_claim", "tenant", "claim_id"),
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
    Column("state", Text, nullable=False),  # pending | answered | expired | relaxed | withdrawn
    Column("answer", Text, nullable=False),  # JSON; empty while there is none
    Column("answered_by", Text, nullable=False),
    Column("answer_key", Text, nullable=False),  # the idempotency key of the signal that answered, or empty
    Column("created", BigInteger, nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("answered", BigInteger),
    Column("requesters", Text, nullable=False),  # those of the run, who do not approve of it
    Column("escalates", BigInteger),  # when more people may answer
    Column("escalated", BigInteger),  # when that was recorded
    Column("escalate_to", Text, nullable=False, server_default=""),  # JSON {"roles", "permissions"}; empty for none
    deleted_with(workflow_runs, ("tenant", "run_id"), "workflow_checkpoints_run"),
    Index("workflow_checkpoints_of_run", "tenant", "run_id"),
    Index("workflow_checkpoints_pending", "tenant", "created", **PENDING),
)

_of_checkpoint = workflow_checkpoints.c
IS_TASK_OF_CHECKPOINT: Final = (tasks.c.tenant == _of_checkpoint.tenant) & (tasks.c.id == _of_checkpoint.run_id)
IS_RUN_OF_CHECKPOINT: Final = (workflow_runs.c.tenant == _of_checkpoint.tenant) & (workflow_runs.c.id == _of_checkpoint.run_id)

workflow_looks = Table(
    "workflow_looks",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("checkpoint_id", Text, primary_key=True),
    Column("person", Text, primary_key=True),  # tenant|issuer|subject of another person than the owner, who has seen the question
    Column("at", BigInteger, nullable=False),  # for the first time
    deleted_with(workflow_checkpoints, ("tenant", "checkpoint_id"), "workflow_looks_checkpoint"),
)

workflow_relaxations = Table(
    "workflow_relaxations",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("workflow", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("step", Text, primary_key=True),  # JSON pointer of the checkpoint
    Column("every", BigInteger, nullable=False),  # each k-th question is asked; 0: none
    Column("above", Text, nullable=False),  # jq on the step's input: where it holds, people are asked
    Column("count", BigInteger, nullable=False),  # questions since then
    Column("author", Text, nullable=False),  # tenant|issuer|subject of the operator
    Column("reason", Text, nullable=False),
    Column("created", BigInteger, nullable=False),
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
    Column("seq", BigInteger),  # counts the events of the tenant, after their commit; NULL before that
    Column("owner", Text, nullable=False, server_default=""),  # tenant|issuer|subject of whom an event of the gateway's own concerns
    Column("permission", Text, nullable=False, server_default=""),  # of whoever else sees an event of the gateway's own
    Index("workflow_events_at", "at"),
    Index("workflow_events_seq", "tenant", "seq"),
    Index("workflow_events_new", "tenant", "at", **UNNUMBERED),
)

workflow_event_counts = Table(
    "workflow_event_counts",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("last", BigInteger, nullable=False),  # the highest `seq` that was given to an event
)

workflow_hops = Table(
    "workflow_hops",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("txn", Text, primary_key=True),  # of all tasks that follow from one run that an event started
    Column("run_id", Text, nullable=False),  # that run
    Column("hops", BigInteger, nullable=False),  # of the event: how many runs that events started came before
    deleted_with(tasks, ("tenant", "run_id"), "workflow_hops_task"),
    Index("workflow_hops_run", "tenant", "run_id"),  # by which the deletion of a task finds its rows
)

workflow_listens = Table(
    "workflow_listens",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("run_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),  # of the listening step
    Column("filters", Text, nullable=False),  # JSON: for each filter the attributes that are no expressions
    Column("progress", Text, nullable=False),  # JSON: what the events so far have settled; empty before the first
    Column("lost", BigInteger, nullable=False),  # events that it was not given, since too many waited to be looked at
    Column("received", BigInteger, nullable=False),  # how many events it was given
    Column("seen", BigInteger, nullable=False),  # how many of them the run has looked at
    deleted_with(workflow_runs, ("tenant", "run_id"), "workflow_listens_run"),
    Index("workflow_listens_unread", "tenant", "run_id", **UNREAD),
)

workflow_listen_types = Table(
    "workflow_listen_types",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("type", Text, primary_key=True),  # of events; empty for every type
    Column("run_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    deleted_with(workflow_listens, ("tenant", "run_id", "key"), "workflow_listen_types_listen"),
)

workflow_received = Table(
    "workflow_received",
    metadata,
    *(Column(name, Text, primary_key=True) for name in ("tenant", "run_id", "key")),
    Column("number", BigInteger, primary_key=True),  # 1 for the first event; those that did not match are deleted
    Column("event", Text, nullable=False),  # JSON; a copy, since events have a retention of their own
    Column("senders", Text, nullable=False),  # JSON array of tenant|issuer|subject: whose rights sent the event
    deleted_with(workflow_listens, ("tenant", "run_id", "key"), "workflow_received_listen"),
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
    Column("problem", Text, nullable=False),  # why the last start was refused, or empty
    Column("paused_at", BigInteger),  # since when it starts nothing
    Column("paused_by", Text, nullable=False, server_default=""),  # tenant|issuer|subject, or empty
    Index("workflow_schedules_due", "next_at", **TIMED),
)

workflow_trigger_types = Table(
    "workflow_trigger_types",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("type", Text, primary_key=True),  # of events that start runs; empty for every type
    Column("workflow", Text, primary_key=True),
    deleted_with(workflow_schedules, ("tenant", "workflow"), "workflow_trigger_types_schedule"),
)

workflow_starts = Table(
    "workflow_starts",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("workflow", Text, primary_key=True),
    Column("id", Text, primary_key=True),  # the idempotency key of the run's start
    Column("created", BigInteger, nullable=False),
    Column("event", Text, nullable=False),  # JSON of the event that starts the run; empty where time does
    Column("wanted", BigInteger, nullable=False),  # 1 once the event is known to match; 0 before
    Column("requesters", Text, nullable=False),  # JSON array of tenant|issuer|subject: whose rights sent the event
    deleted_with(workflow_schedules, ("tenant", "workflow"), "workflow_starts_schedule"),
)
