"""The thirty-fifth schema: the database says which older code still works on it."""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0033"


def upgrade() -> None:
    op.create_table(
        "schema_bounds",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("usable_from", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("schema_bounds")
