"""The fifteenth schema: rows that belong to others have foreign keys, by which they are deleted with them."""

from typing import NamedTuple

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


class _Key(NamedTuple):
    """A foreign key from `columns` of `table` to `parent_columns`, the primary key of `parent`."""

    name: str
    table: str
    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]


_KEYS = (  # a parent comes before what refers to it
    _Key("cards_registration", "cards", ("tenant", "name"), "registrations", ("tenant", "name")),
    _Key("approval_votes_approval", "approval_votes", ("tenant", "approval_id"), "approvals", ("tenant", "id")),
    _Key("push_configs_task", "push_configs", ("tenant", "task_id"), "tasks", ("tenant", "id")),
    _Key("deliveries_config", "deliveries", ("tenant", "task_id", "config_id"), "push_configs", ("tenant", "task_id", "id")),
    _Key("mcp_questions_task", "mcp_questions", ("task_id",), "mcp_tasks", ("id",)),
    _Key("task_answers_task", "task_answers", ("tenant", "task_id"), "tasks", ("tenant", "id")),
)


def upgrade() -> None:
    for key in _KEYS:
        _delete_orphans(key)
        with op.batch_alter_table(key.table) as table:  # SQLite makes the table anew
            table.create_foreign_key(key.name, key.parent, list(key.columns), list(key.parent_columns), ondelete="CASCADE")


def _delete_orphans(key: _Key) -> None:
    """Rows whose parent is gone already are of no use to anybody: every query of them names the parent."""
    child = sa.table(key.table, *(sa.column(name) for name in key.columns))
    parent = sa.table(key.parent, *(sa.column(name) for name in key.parent_columns))
    same = (child.c[own] == parent.c[theirs] for own, theirs in zip(key.columns, key.parent_columns, strict=True))
    op.execute(child.delete().where(~sa.select(sa.literal(1)).select_from(parent).where(*same).correlate(child).exists()))


def downgrade() -> None:
    for key in reversed(_KEYS):
        with op.batch_alter_table(key.table) as table:
            table.drop_constraint(key.name, type_="foreignkey")
