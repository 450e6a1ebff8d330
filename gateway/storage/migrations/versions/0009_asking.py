"""The ninth schema: an index of the tasks that wait for an answer, by agent."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    where = sa.text("state = 'TASK_STATE_INPUT_REQUIRED'")
    op.create_index("tasks_asking", "tasks", ["tenant", "agent"], sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    op.drop_index("tasks_asking", "tasks")
