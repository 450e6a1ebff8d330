"""The seventh schema: with which arguments the tool was called whose server made a task of it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("mcp_tasks", sa.Column("arguments", sa.Text()))


def downgrade() -> None:
    op.drop_column("mcp_tasks", "arguments")
