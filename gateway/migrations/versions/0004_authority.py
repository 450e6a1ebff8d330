"""The fourth schema: tickets of agents that exchange no tokens."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def _tickets() -> None:
    op.create_table(
        "tickets",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("hash", sa.Text(), primary_key=True),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.Text(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
    )
    op.create_index("tickets_not_after", "tickets", ["tenant", "not_after"])


def upgrade() -> None:
    _tickets()


def downgrade() -> None:
    op.drop_table("tickets")
