"""The eighth schema: the process that holds the stream of an older client's session, and the subscriptions that it holds there."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("mcp_sessions", sa.Column("streamer", sa.Text()))
    op.add_column("mcp_sessions", sa.Column("holds", sa.Text()))
    op.create_index("mcp_sessions_streamer", "mcp_sessions", ["streamer"])
    epochs = sa.table("epochs", sa.column("name", sa.Text), sa.column("value", sa.BigInteger))
    op.execute(epochs.insert().values(name="sessions", value=0))


def downgrade() -> None:
    op.execute("DELETE FROM epochs WHERE name = 'sessions'")
    op.drop_index("mcp_sessions_streamer", "mcp_sessions")
    op.drop_column("mcp_sessions", "holds")
    op.drop_column("mcp_sessions", "streamer")
