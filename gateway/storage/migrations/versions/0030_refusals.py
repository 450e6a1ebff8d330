"""The thirtieth schema: which decisions refused an act of a person, so that people see theirs without a search through the audit."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    op.create_table(
        "refusals",
        *(sa.Column(name, sa.Text(), primary_key=True, nullable=False) for name in ("tenant", "owner")),
        sa.Column("at", sa.BigInteger(), primary_key=True, nullable=False, autoincrement=False),
        sa.Column("decision_id", sa.Text(), primary_key=True, nullable=False),
        sa.Column("hidden", sa.BigInteger(), nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("refusals_at", "refusals", ["tenant", "at"])


def downgrade() -> None:
    op.drop_table("refusals")
