"""The twenty-eighth schema: links to the console and its sessions that belong to a sign-in, and sessions whose roles one process renews."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    for table in ("console_links", "console_sessions"):
        op.add_column(table, sa.Column("sign_in", sa.Text(), nullable=False, server_default=""))
    op.add_column("sign_in_sessions", sa.Column("renewing", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    for table in ("console_links", "console_sessions"):
        op.drop_column(table, "sign_in")
    op.drop_column("sign_in_sessions", "renewing")
