"""The twentieth schema: budgets are reserved before a call and settled after it, and reports of usage can be set aside."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"

_ONE_BY_ONE = ("tenant", "id")


def upgrade() -> None:
    op.add_column("budgets", sa.Column("reserved", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("costs", sa.Column("quarantined", sa.Text(), nullable=False, server_default=""))
    op.add_column("costs", sa.Column("charged", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("costs_target", "costs", ["tenant", "target", "tool", "at"])
    op.create_table(
        "reservations",
        *(sa.Column(name, sa.Text(), primary_key=True, nullable=False) for name in _ONE_BY_ONE),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("task_id", "day", "shares", "entry")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("amount", "until")),
        sa.Column("charged_at", sa.BigInteger()),
    )
    op.create_index("reservations_task", "reservations", ["tenant", "task_id"])


def downgrade() -> None:
    op.drop_table("reservations")
    op.drop_index("costs_target", "costs")
    for name in ("charged", "quarantined"):
        op.drop_column("costs", name)
    op.drop_column("budgets", "reserved")
