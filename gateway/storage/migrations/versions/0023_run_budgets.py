"""The twenty-third schema: budgets of runs, which tasks the steps of runs caused, and costs by run and step."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"


def upgrade() -> None:
    op.create_table(
        "run_tasks",
        *(sa.Column(name, sa.Text(), primary_key=True, nullable=False) for name in ("tenant", "task_id")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("run_id", "step")),
        _deleted_with_task("task_id", "run_tasks_task"),
    )
    op.create_table(
        "run_budgets",
        *(sa.Column(name, sa.Text(), primary_key=True, nullable=False) for name in ("tenant", "run_id", "name")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("cost", "reserved", "most")),
        _deleted_with_task("run_id", "run_budgets_task"),
    )
    for name in ("run_id", "step"):
        op.add_column("costs", sa.Column(name, sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    for name in ("step", "run_id"):
        op.drop_column("costs", name)
    op.drop_table("run_budgets")
    op.drop_table("run_tasks")


def _deleted_with_task(column: str, name: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["tenant", column], ["tasks.tenant", "tasks.id"], name=name, ondelete="CASCADE")
