"""The twenty-seventh schema: indexes of lists, sums of the costs of days that are over, and schedules that are paused."""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"

_UNUSUAL = sa.text("state <> 'TASK_STATE_COMPLETED'")
_RARE_KIND = sa.text("kind NOT IN ('decision', 'outcome')")
_FIGURES = ("amount", "priced", "unpriced", "quarantined", "input_tokens", "output_tokens", "charged")


def _number(name: str, *, is_key: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), primary_key=is_key, nullable=False, autoincrement=False)


def _key(name: str) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), primary_key=True, nullable=False)


def upgrade() -> None:
    for name in ("tasks_owner", "tasks_state", "tasks_context"):
        op.drop_index(name, "tasks")
    op.create_index("tasks_owner", "tasks", ["tenant", "owner", "updated", "agent", "state"])
    op.create_index("tasks_updated", "tasks", ["tenant", "updated", "agent", "state"])
    columns = ["tenant", "state", "updated", "owner", "agent"]
    op.create_index("tasks_state", "tasks", columns, sqlite_where=_UNUSUAL, postgresql_where=_UNUSUAL)
    op.create_index("tasks_context", "tasks", ["tenant", "context_id", "owner", "agent"])
    op.drop_index("workflow_runs_of_workflow", "workflow_runs")
    op.create_index("workflow_runs_of_workflow", "workflow_runs", ["tenant", "workflow", "started"])
    op.create_index("workflow_runs_started", "workflow_runs", ["tenant", "started"])
    op.create_index("approvals_created", "approvals", ["tenant", "created"])
    op.create_index("audit_at", "audit", ["tenant", "at"])
    op.create_index("audit_kind", "audit", ["tenant", "kind", "at"], sqlite_where=_RARE_KIND, postgresql_where=_RARE_KIND)
    op.add_column("workflow_schedules", sa.Column("paused_at", sa.BigInteger()))
    op.add_column("workflow_schedules", sa.Column("paused_by", sa.Text(), nullable=False, server_default=""))
    op.create_table("cost_days", _key("tenant"), _number("day", is_key=True), _number("summed"), _number("begun"))
    op.create_table(
        "cost_sums",
        _key("tenant"),
        _number("day", is_key=True),
        *map(_key, ("dimension", "owner", "name")),
        *map(_number, _FIGURES),
        sa.ForeignKeyConstraint(["tenant", "day"], ["cost_days.tenant", "cost_days.day"], name="cost_sums_day", ondelete="CASCADE"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for table in ("cost_sums", "cost_days"):
        op.drop_table(table)
    for name in ("paused_by", "paused_at"):
        op.drop_column("workflow_schedules", name)
    op.drop_index("approvals_created", "approvals")
    for name in ("audit_kind", "audit_at"):
        op.drop_index(name, "audit")
    for name in ("workflow_runs_started", "workflow_runs_of_workflow"):
        op.drop_index(name, "workflow_runs")
    op.create_index("workflow_runs_of_workflow", "workflow_runs", ["tenant", "workflow"])
    for name in ("tasks_context", "tasks_state", "tasks_updated", "tasks_owner"):
        op.drop_index(name, "tasks")
    op.create_index("tasks_owner", "tasks", ["tenant", "owner", "updated"])
    op.create_index("tasks_context", "tasks", ["tenant", "owner", "context_id", "agent"])
    op.create_index("tasks_state", "tasks", ["tenant", "owner", "agent", "state", "updated"])
