"""The fourth schema: tickets of agents that exchange no tokens, what operators stopped, and what is spent of budgets."""

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


def _kills() -> None:
    op.create_table(
        "kills",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("id", sa.Text(), primary_key=True),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("kind", "name", "reason", "by")),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
    epochs = sa.table("epochs", sa.column("name", sa.Text), sa.column("value", sa.BigInteger))
    op.execute(epochs.insert().values(name="kills", value=0))


def _budgets() -> None:
    op.create_table(
        "budgets",
        *(sa.Column(name, sa.Text(), primary_key=True) for name in ("tenant", "day", "name")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("calls", "cost")),
    )


def upgrade() -> None:
    _tickets()
    _kills()
    _budgets()


def downgrade() -> None:
    op.execute("DELETE FROM epochs WHERE name = 'kills'")
    for name in ("budgets", "kills", "tickets"):
        op.drop_table(name)
