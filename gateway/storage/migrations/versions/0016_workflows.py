"""The sixteenth schema: workflows with versions and schedules, runs with their journal, what they wait for, and what calls cost."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"

_DUE = sa.text("wake_at IS NOT NULL")
_QUEUED = sa.text("queued_at IS NOT NULL")
_ENDING = sa.text("ends_at IS NOT NULL")
_PENDING = sa.text("state = 'pending'")
_UNREAD = sa.text("received > seen")
_UNNUMBERED = sa.text("seq IS NULL")
_TIMED = sa.text("next_at IS NOT NULL")
_LIMITED_ROLES = sa.text("roles_until IS NOT NULL")


def upgrade() -> None:
    _create_runs()
    _create_journal()
    _create_checkpoints()
    _create_events()
    _create_schedules()
    _create_relaxations()
    _create_notices()
    op.add_column("grants", sa.Column("roles_until", sa.BigInteger()))
    of_run = ["tenant", "task_id"]
    op.create_index("grants_of_run", "grants", of_run, sqlite_where=_LIMITED_ROLES, postgresql_where=_LIMITED_ROLES)
    _create_costs()


def _texts(*names: str, key: bool = False) -> list["sa.Column[str]"]:
    return [sa.Column(name, sa.Text(), primary_key=key, nullable=False) for name in names]


def _numbers(*names: str) -> list["sa.Column[int]"]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _belongs_to_run(table: str) -> sa.ForeignKeyConstraint:
    parent = ["workflow_runs.tenant", "workflow_runs.id"]
    return sa.ForeignKeyConstraint(["tenant", "run_id"], parent, name=f"{table}_run", ondelete="CASCADE")


def _belongs_to(parent: str, columns: list[str], name: str, keys: list[str] | None = None) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(columns, [f"{parent}.{column}" for column in keys or columns], name=name, ondelete="CASCADE")


def _create_runs() -> None:
    op.create_table(
        "workflow_versions",
        *_texts("tenant", "name", "hash", key=True),
        *_texts("document", "author"),
        *_numbers("created"),
    )
    op.create_table(
        "workflow_runs",
        *_texts("tenant", "id", key=True),
        *_texts("workflow", "version", "input"),
        *_numbers("started"),
        sa.Column("wake_at", sa.BigInteger()),
        *_texts("note"),
        sa.Column("ends_at", sa.BigInteger()),
        sa.Column("paused_at", sa.BigInteger()),
        *_texts("paused_by", "fault", "origin_id", "origin_kind", "origin_step", "inputs", "requesters"),
        sa.Column("waits_for_sign_in", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("queued_at", sa.BigInteger()),
        sa.Column("runs_max", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("admitted_at", sa.BigInteger()),
        sa.ForeignKeyConstraint(["tenant", "id"], ["tasks.tenant", "tasks.id"], name="workflow_runs_task", ondelete="CASCADE"),
    )
    op.create_index("workflow_runs_origin", "workflow_runs", ["tenant", "origin_id"])
    op.create_index("workflow_runs_due", "workflow_runs", ["wake_at"], sqlite_where=_DUE, postgresql_where=_DUE)
    columns = ["tenant", "workflow", "queued_at"]
    op.create_index("workflow_runs_queued", "workflow_runs", columns, sqlite_where=_QUEUED, postgresql_where=_QUEUED)
    op.create_index("workflow_runs_of_workflow", "workflow_runs", ["tenant", "workflow"])
    op.create_index("workflow_runs_ending", "workflow_runs", ["ends_at"], sqlite_where=_ENDING, postgresql_where=_ENDING)


def _create_journal() -> None:
    op.create_table(
        "workflow_steps",
        *_texts("tenant", "run_id", "key", key=True),
        *_texts("kind", "step", "visits", "attempts", "task_id"),
        *_numbers("seq", "started", "ended"),
        *_texts("result", "target", "decision_id", "input", "input_digest", "output_digest", "usage"),
        _belongs_to_run("workflow_steps"),
    )
    op.create_index("workflow_steps_order", "workflow_steps", ["tenant", "run_id", "seq"])
    op.create_table(
        "workflow_values",
        *_texts("tenant", "run_id", "digest", key=True),
        *_numbers("size"),
        *_texts("value"),
        _belongs_to_run("workflow_values"),
    )
    op.create_table("workflow_waits", *_texts("tenant", "run_id", "task_id", key=True), *_texts("state"), _belongs_to_run("workflow_waits"))


def _create_checkpoints() -> None:
    op.create_table(
        "workflow_checkpoints",
        *_texts("tenant", "id", key=True),
        *_texts(
            "run_id", "step", "workflow", "owner", "kind", "prompt", "schema", "subject", "state", "answer", "answered_by", "answer_key"
        ),
        *_numbers("created", "expires"),
        sa.Column("answered", sa.BigInteger()),
        *_texts("requesters"),
        sa.Column("escalates", sa.BigInteger()),
        sa.Column("escalated", sa.BigInteger()),
        sa.Column("escalate_to", sa.Text(), nullable=False, server_default=""),
        _belongs_to_run("workflow_checkpoints"),
    )
    op.create_index("workflow_checkpoints_of_run", "workflow_checkpoints", ["tenant", "run_id"])
    columns = ["tenant", "created"]
    op.create_index("workflow_checkpoints_pending", "workflow_checkpoints", columns, sqlite_where=_PENDING, postgresql_where=_PENDING)
    op.create_table(
        "workflow_looks",
        *_texts("tenant", "checkpoint_id", "person", key=True),
        *_numbers("at"),
        sa.ForeignKeyConstraint(
            ["tenant", "checkpoint_id"],
            ["workflow_checkpoints.tenant", "workflow_checkpoints.id"],
            name="workflow_looks_checkpoint",
            ondelete="CASCADE",
        ),
    )


def _create_events() -> None:
    op.create_table(
        "workflow_events",
        *_texts("tenant", "source", "id", key=True),
        *_texts("type", "sender"),
        *_numbers("at"),
        *_texts("event"),
        sa.Column("seq", sa.BigInteger()),
    )
    op.create_index("workflow_events_at", "workflow_events", ["at"])
    op.create_index("workflow_events_seq", "workflow_events", ["tenant", "seq"])
    op.create_index("workflow_events_new", "workflow_events", ["tenant", "at"], sqlite_where=_UNNUMBERED, postgresql_where=_UNNUMBERED)
    op.create_table("workflow_event_counts", *_texts("tenant", key=True), *_numbers("last"))
    op.create_table(
        "workflow_hops",
        *_texts("tenant", "txn", key=True),
        *_texts("run_id"),
        *_numbers("hops"),
        _belongs_to("tasks", ["tenant", "run_id"], "workflow_hops_task", ["tenant", "id"]),
    )
    op.create_table(
        "workflow_listens",
        *_texts("tenant", "run_id", "key", key=True),
        *_texts("filters", "progress"),
        *_numbers("lost", "received", "seen"),
        _belongs_to_run("workflow_listens"),
    )
    columns = ["tenant", "run_id"]
    op.create_index("workflow_listens_unread", "workflow_listens", columns, sqlite_where=_UNREAD, postgresql_where=_UNREAD)
    listen = ("workflow_listens", ["tenant", "run_id", "key"])
    types = _texts("tenant", "type", "run_id", "key", key=True)
    op.create_table("workflow_listen_types", *types, _belongs_to(*listen, "workflow_listen_types_listen"))
    op.create_table(
        "workflow_received",
        *_texts("tenant", "run_id", "key", key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True, nullable=False),
        *_texts("event", "senders"),
        _belongs_to(*listen, "workflow_received_listen"),
    )


def _create_schedules() -> None:
    op.create_table(
        "workflow_schedules",
        *_texts("tenant", "workflow", key=True),
        *_texts("terms"),
        sa.Column("next_at", sa.BigInteger()),
        *_texts("last_run"),
        *_numbers("claimed"),
        *_texts("problem"),
    )
    op.create_index("workflow_schedules_due", "workflow_schedules", ["next_at"], sqlite_where=_TIMED, postgresql_where=_TIMED)
    schedule = ("workflow_schedules", ["tenant", "workflow"])
    types = _texts("tenant", "type", "workflow", key=True)
    op.create_table("workflow_trigger_types", *types, _belongs_to(*schedule, "workflow_trigger_types_schedule"))
    op.create_table(
        "workflow_starts",
        *_texts("tenant", "workflow", "id", key=True),
        *_numbers("created"),
        *_texts("event", "requesters"),
        *_numbers("wanted"),
        _belongs_to(*schedule, "workflow_starts_schedule"),
    )


def _create_relaxations() -> None:
    op.create_table(
        "workflow_relaxations",
        *_texts("tenant", "workflow", "version", "step", key=True),
        *_numbers("every"),
        *_texts("above"),
        *_numbers("count"),
        *_texts("author", "reason"),
        *_numbers("created"),
    )


def _create_notices() -> None:
    op.create_table(
        "notices",
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        *_texts("tenant", "kind", "subject", "task_id", "owner", "body"),
        *_numbers("at"),
    )
    op.create_index("notices_at", "notices", ["at"])
    op.create_table("notice_webhooks", *_texts("id", key=True), *_numbers("cursor", "attempts", "next_at"))
    epochs = sa.table("epochs", sa.column("name", sa.Text), sa.column("value", sa.BigInteger))
    op.execute(epochs.insert().values(name="notices", value=0))


def _create_costs() -> None:
    op.create_table(
        "costs",
        *_texts("tenant", "id", key=True),
        sa.Column("seq", sa.BigInteger(), primary_key=True, nullable=False),
        *_texts("task_id"),
        *_numbers("at"),
        *_texts("owner", "actor", "target", "tool", "workflow", "txn"),
        sa.Column("amount", sa.BigInteger()),
        *_texts("model"),
        sa.Column("input_tokens", sa.BigInteger()),
        sa.Column("output_tokens", sa.BigInteger()),
    )
    op.create_index("costs_at", "costs", ["tenant", "at"])
    op.create_index("costs_owner", "costs", ["tenant", "owner", "at"])
    op.create_index("costs_txn", "costs", ["tenant", "txn"])


def downgrade() -> None:
    op.execute("DELETE FROM epochs WHERE name = 'notices'")
    op.drop_table("costs")
    for table in ("notice_webhooks", "notices", "workflow_relaxations", "workflow_looks"):
        op.drop_table(table)
    op.drop_index("grants_of_run", "grants")
    op.drop_column("grants", "roles_until")
    for table in ("workflow_starts", "workflow_trigger_types", "workflow_schedules"):
        op.drop_table(table)
    for table in (
        "workflow_hops",
        "workflow_event_counts",
        "workflow_received",
        "workflow_listen_types",
        "workflow_listens",
        "workflow_events",
    ):
        op.drop_table(table)
    for table in ("workflow_checkpoints", "workflow_waits", "workflow_values", "workflow_steps", "workflow_runs", "workflow_versions"):
        op.drop_table(table)
