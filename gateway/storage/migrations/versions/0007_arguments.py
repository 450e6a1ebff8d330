"""The seventh schema: the arguments of tool calls from which servers made tasks."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("mcp_tasks", sa.Column("arguments", sa.Text()))


def downgrade() -> None:
    op.drop_column("mcp_tasks", "arguments")
