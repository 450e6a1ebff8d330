"""The eleventh schema: an index of a caller's tasks with one agent, by state."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.create_index("tasks_state", "tasks", ["tenant", "owner", "agent", "state", "updated"])


def downgrade() -> None:
    op.drop_index("tasks_state", "tasks")
