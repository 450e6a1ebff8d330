"""The twelfth schema: the trace context in which a task began, so that its later work belongs to the same trace."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("tasks", sa.Column("trace", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("tasks", "trace")
