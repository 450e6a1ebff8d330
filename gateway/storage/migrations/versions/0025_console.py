"""The twenty-fifth schema: one-time links to the console, and the sessions of browsers."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"


def _person() -> list["sa.Column[str]"]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in ("tenant", "issuer", "subject", "roles", "scope")]


def _moments(*names: str) -> list["sa.Column[int]"]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _digest() -> "sa.Column[str]":
    return sa.Column("digest", sa.Text(), primary_key=True, nullable=False)


def upgrade() -> None:
    op.create_table("console_links", _digest(), *_person(), *_moments("session_until", "created", "until"))
    op.create_index("console_links_person", "console_links", ["tenant", "issuer", "subject", "created"])
    op.create_table("console_sessions", _digest(), *_person(), *_moments("created", "seen", "until"))
    op.create_index("console_sessions_person", "console_sessions", ["tenant", "issuer", "subject", "created"])


def downgrade() -> None:
    for table in ("console_sessions", "console_links"):
        op.drop_table(table)
