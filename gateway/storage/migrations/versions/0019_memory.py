"""The nineteenth schema: memory, with its scopes, facts and their older versions, quarantined sources, and the index of words."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"

_EXPIRING = sa.text("expires IS NOT NULL")


def upgrade() -> None:
    op.create_table("memory_scopes", *_texts("tenant", "owner", "workflow", key=True), *_texts("salt"), *_numbers("facts"))
    _create_facts()
    op.create_table("memory_quarantines", *_texts("tenant", "agent", key=True), *_texts("author", "reason"), *_numbers("at"))
    _create_index()


def _texts(*names: str, key: bool = False) -> list["sa.Column[str]"]:
    return [sa.Column(name, sa.Text(), primary_key=key, nullable=False) for name in names]


def _numbers(*names: str) -> list["sa.Column[int]"]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _create_facts() -> None:
    scope = ["tenant", "owner", "workflow"]
    op.create_table(
        "memory_facts",
        *_texts("tenant", "id", key=True),
        *_numbers("number"),
        *_texts("owner", "workflow"),
        *_numbers("version"),
        *_texts("text", "digest"),
        *_numbers("sensitivity"),
        *_texts("agent", "task_id", "author"),
        *_numbers("created", "updated"),
        sa.Column("expires", sa.BigInteger()),
        sa.ForeignKeyConstraint(scope, [f"memory_scopes.{name}" for name in scope], name="memory_facts_scope", ondelete="CASCADE"),
    )
    op.create_index("memory_facts_number", "memory_facts", ["number"], unique=True)
    op.create_index("memory_facts_in_scope", "memory_facts", [*scope, "updated", "id"])
    op.create_index("memory_facts_digest", "memory_facts", [*scope, "digest"])
    op.create_index("memory_facts_author", "memory_facts", ["tenant", "author"])
    op.create_index("memory_facts_expiring", "memory_facts", ["expires"], sqlite_where=_EXPIRING, postgresql_where=_EXPIRING)
    op.create_table(
        "memory_versions",
        *_texts("tenant", "fact_id", key=True),
        sa.Column("version", sa.BigInteger(), primary_key=True, nullable=False, autoincrement=False),
        *_texts("text"),
        *_numbers("sensitivity"),
        *_texts("agent", "task_id", "author"),
        *_numbers("at"),
        sa.ForeignKeyConstraint(
            ["tenant", "fact_id"], ["memory_facts.tenant", "memory_facts.id"], name="memory_versions_fact", ondelete="CASCADE"
        ),
    )
    op.create_index("memory_versions_author", "memory_versions", ["tenant", "author"])


def _create_index() -> None:
    """The terms are hex digits, so the simplest tokenizer splits them, and neither positions nor columns are needed."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("CREATE VIRTUAL TABLE memory_index USING fts5(terms, tokenize='ascii', detail=none, columnsize=0)")
        return
    op.execute(
        "CREATE TABLE memory_index (number BIGINT PRIMARY KEY REFERENCES memory_facts (number) ON DELETE CASCADE, terms TSVECTOR NOT NULL)"
    )
    op.execute("CREATE INDEX memory_index_terms ON memory_index USING GIN (terms)")


def downgrade() -> None:
    for table in ("memory_index", "memory_versions", "memory_quarantines", "memory_facts", "memory_scopes"):
        op.drop_table(table)
