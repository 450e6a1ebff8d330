"""The sixth schema: until when the turn lasts that a grant was made for."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("grants", sa.Column("deadline", sa.BigInteger()))


def downgrade() -> None:
    op.drop_column("grants", "deadline")
