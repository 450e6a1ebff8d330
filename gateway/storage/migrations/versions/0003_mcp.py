"""The third schema: sessions of older MCP clients and their streams, mail between processes, tasks of MCP servers and answers to tasks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def _mcp_sessions() -> None:
    op.create_table(
        "mcp_sessions",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("resource", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("capabilities", sa.Text(), nullable=False),
        sa.Column("level", sa.Text(), nullable=False),
        sa.Column("uris", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
    )
    op.create_index("mcp_sessions_holder", "mcp_sessions", ["holder", "used"])
    op.create_index("mcp_sessions_used", "mcp_sessions", ["used"])


def _mcp_events() -> None:
    op.create_table(
        "mcp_events",
        sa.Column("session", sa.Text(), primary_key=True),
        sa.Column("stream", sa.Text(), primary_key=True),
        sa.Column("seq", sa.BigInteger(), primary_key=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
    )
    op.create_index("mcp_events_at", "mcp_events", ["at"])


def _mail() -> None:
    op.create_table(
        "mail",
        sa.Column("address", sa.Text(), primary_key=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
    )
    op.create_index("mail_until", "mail", ["until"])


def _tasks() -> None:
    op.create_table(
        "mcp_tasks",
        sa.Column("id", sa.Text(), primary_key=True),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "holder", "server", "tool", "own")),
        sa.Column("created", sa.BigInteger(), nullable=False),
    )
    op.create_index("mcp_tasks_created", "mcp_tasks", ["created"])
    op.create_table(
        "task_answers",
        *(sa.Column(name, sa.Text(), primary_key=True) for name in ("tenant", "task_id", "question")),
        sa.Column("body", sa.Text(), nullable=False),
    )


def upgrade() -> None:
    _mcp_sessions()
    _mcp_events()
    _mail()
    _tasks()


def downgrade() -> None:
    for name in ("task_answers", "mcp_tasks", "mail", "mcp_events", "mcp_sessions"):
        op.drop_table(name)
