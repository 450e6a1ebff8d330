"""The seventeenth schema: shared state with its history, values that are held back, and versions of subjects."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

_EXPIRING = sa.text("expires IS NOT NULL")
_KEY_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_PENDING = sa.text("state = 'pending'")


def upgrade() -> None:
    _create_values()
    _create_changes()
    _create_held()
    op.create_table("state_counters", *_texts("tenant", key=True), *_numbers("seq", "pruned", "key_count", "byte_count"))
    op.create_table("subjects", *_texts("tenant", "subject", key=True), *_numbers("version", "updated"))


def _texts(*names: str, key: bool = False) -> list["sa.Column[str]"]:
    return [sa.Column(name, sa.Text(), primary_key=key, nullable=False) for name in names]


def _numbers(*names: str) -> list["sa.Column[int]"]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _source() -> list["sa.Column[str]"]:
    return _texts("updated_by", "agent", "chain", "task_id", "decision_id")


def _create_values() -> None:
    op.create_table(
        "state_values",
        *_texts("tenant", key=True),
        sa.Column("key", _KEY_TEXT, primary_key=True, nullable=False),
        *_numbers("version"),
        *_texts("value"),
        *_numbers("sensitivity"),
        *_source(),
        *_numbers("created", "updated"),
        sa.Column("expires", sa.BigInteger()),
    )
    op.create_index("state_values_expiring", "state_values", ["expires"], sqlite_where=_EXPIRING, postgresql_where=_EXPIRING)


def _create_changes() -> None:
    op.create_table(
        "state_changes",
        *_texts("tenant", key=True),
        sa.Column("seq", sa.BigInteger(), primary_key=True, nullable=False, autoincrement=False),
        sa.Column("key", _KEY_TEXT, nullable=False),
        *_numbers("version"),
        *_texts("kind"),
        sa.Column("value", sa.Text()),
        *_numbers("sensitivity"),
        *_source(),
        *_numbers("at"),
    )
    op.create_index("state_changes_key", "state_changes", ["tenant", "key", "version"])
    op.create_index("state_changes_at", "state_changes", ["at"])


def _create_held() -> None:
    op.create_table(
        "state_held",
        *_texts("tenant", "id", key=True),
        sa.Column("key", _KEY_TEXT, nullable=False),
        *_numbers("base"),
        *_texts("value", "problem"),
        *_numbers("sensitivity"),
        *_source(),
        *_numbers("at"),
        *_texts("state", "decided_by"),
        sa.Column("decided", sa.BigInteger()),
    )
    op.create_index("state_held_pending", "state_held", ["tenant", "at"], sqlite_where=_PENDING, postgresql_where=_PENDING)
    op.create_index("state_held_at", "state_held", ["at"])


def downgrade() -> None:
    for table in ("subjects", "state_held", "state_counters", "state_changes", "state_values"):
        op.drop_table(table)
