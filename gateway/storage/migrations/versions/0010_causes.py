"""The tenth schema: why an agent or server could not be reached, for operators."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.add_column("probes", sa.Column("cause", sa.Text(), nullable=False, server_default=""))


def downgrade() -> None:
    op.drop_column("probes", "cause")
