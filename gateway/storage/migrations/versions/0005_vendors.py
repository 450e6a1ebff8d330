"""The fifth schema: the terms on which agents are called."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("registrations", sa.Column("terms", sa.Text(), nullable=False, server_default="{}"))


def downgrade() -> None:
    op.drop_column("registrations", "terms")
