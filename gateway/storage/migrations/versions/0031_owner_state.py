"""The thirty-first schema: a person's tasks in a state other than completed are found without a look at those of other people."""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
_UNUSUAL = sa.text("state <> 'TASK_STATE_COMPLETED'")


def upgrade() -> None:
    columns = ["tenant", "owner", "state", "updated", "agent"]
    op.create_index("tasks_owner_state", "tasks", columns, sqlite_where=_UNUSUAL, postgresql_where=_UNUSUAL)


def downgrade() -> None:
    op.drop_index("tasks_owner_state", "tasks")
