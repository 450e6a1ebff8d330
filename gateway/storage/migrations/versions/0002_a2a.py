"""The second schema: cards and their history, probes of agents, the index of agents for search, and push notifications."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def _only(where: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(where), "postgresql_where": sa.text(where)}


def _registrations() -> None:
    op.add_column("registrations", sa.Column("trusted_keys", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("registrations", sa.Column("rank", sa.BigInteger(), nullable=False, server_default="0"))


def _cards() -> None:
    op.create_table(
        "cards",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("seq", sa.BigInteger(), primary_key=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("card", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("signature", sa.Text(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
    )


def _probes() -> None:
    op.create_table(
        "probes",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("checked", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("place", sa.Text(), nullable=False),
        sa.Column("etag", sa.Text(), nullable=False),
        sa.Column("last_modified", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
    )


def _agent_search() -> None:
    """Creates the search tables; registry/search_terms.py computes the terms."""
    if op.get_bind().dialect.name == "sqlite":
        tokens = "tokenize='unicode61 remove_diacritics 0'"
        op.execute(f"CREATE VIRTUAL TABLE agent_search USING fts5(tenant UNINDEXED, name UNINDEXED, terms, {tokens})")
        return
    op.execute("CREATE TABLE agent_search (tenant text, name text, terms tsvector NOT NULL, PRIMARY KEY (tenant, name))")
    op.execute("CREATE INDEX agent_search_terms ON agent_search USING gin (terms)")


def _push_configs() -> None:
    op.create_table(
        "push_configs",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("task_id", sa.Text(), primary_key=True),
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secrets", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("live", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
    )
    op.create_index("push_configs_live", "push_configs", ["tenant", "task_id"], **_only("live = 1"))


def _deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("task_id", sa.Text(), primary_key=True),
        sa.Column("config_id", sa.Text(), primary_key=True),
        sa.Column("seq", sa.BigInteger(), primary_key=True),
        sa.Column("id", sa.Text(), nullable=False, unique=True),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
    )
    op.create_index("deliveries_due", "deliveries", ["next_at"], **_only("state = 'pending'"))
    op.create_index("deliveries_dead", "deliveries", ["tenant", "id"], **_only("state = 'dead'"))


def upgrade() -> None:
    _registrations()
    _cards()
    _probes()
    _agent_search()
    _push_configs()
    _deliveries()


def downgrade() -> None:
    for name in ("deliveries", "push_configs", "agent_search", "probes", "cards"):
        op.drop_table(name)
    for name in ("rank", "trusted_keys"):
        op.drop_column("registrations", name)
