"""The sixth schema: the end of the turn for which a grant was made."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("grants", sa.Column("deadline", sa.BigInteger()))


def downgrade() -> None:
    op.drop_column("grants", "deadline")
