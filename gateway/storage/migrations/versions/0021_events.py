"""The twenty-first schema: events of the gateway's own, and the ways of events to webhooks and triggers."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"

_PENDING = sa.text("state = 'pending'")


def upgrade() -> None:
    for name in ("owner", "permission"):
        op.add_column("workflow_events", sa.Column(name, sa.Text(), nullable=False, server_default=""))
    _create_outbox()
    _create_deliveries()
    _create_starts()
    epochs = sa.table("epochs", sa.column("name", sa.Text), sa.column("value", sa.BigInteger))
    op.execute(epochs.insert().values(name="event-types", value=0))


def _texts(*names: str, key: bool = False) -> list["sa.Column[str]"]:
    return [sa.Column(name, sa.Text(), primary_key=key, nullable=False) for name in names]


def _numbers(*names: str) -> list["sa.Column[int]"]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _number() -> "sa.Column[int]":
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("seq", kind, primary_key=True, autoincrement=True, nullable=False)


def _attempts() -> list["sa.Column[Any]"]:
    return [*_numbers("attempts", "next_at"), *_texts("state", "reason"), *_numbers("created", "updated")]


def _create_outbox() -> None:
    names = ("tenant", "id", "type", "subject", "owner", "permission", "txn", "data")
    op.create_table("event_outbox", _number(), *_texts(*names), *_numbers("at"))
    op.create_table("event_cursors", *_texts("name", key=True), *_numbers("cursor"))


def _create_deliveries() -> None:
    names = ("tenant", "id", "webhook", "subject", "event_id", "event")
    op.create_table("event_deliveries", _number(), *_texts(*names), *_attempts())
    op.create_index("event_deliveries_id", "event_deliveries", ["tenant", "id"])
    _create_open_index("event_deliveries_open", "event_deliveries", ["webhook", "next_at"])
    _create_open_index("event_deliveries_subject", "event_deliveries", ["webhook", "subject", "seq"])


def _create_starts() -> None:
    names = ("tenant", "id", "name", "start", "subject", "event_id", "event", "requesters")
    op.create_table("event_starts", _number(), *_texts(*names), *_attempts())
    op.create_index("event_starts_start", "event_starts", ["tenant", "name", "start"], unique=True)
    op.create_index("event_starts_id", "event_starts", ["tenant", "id"])
    _create_open_index("event_starts_open", "event_starts", ["next_at"])
    _create_open_index("event_starts_subject", "event_starts", ["tenant", "name", "subject", "seq"])
    op.create_table("event_triggers", *_texts("tenant", "name", key=True), *_texts("last_task", "problem"), *_numbers("updated"))
    op.create_table("event_causes", *_texts("tenant", "txn", key=True), *_texts("task_id", "requesters"), *_numbers("at"))
    op.create_index("event_causes_at", "event_causes", ["at"])


def _create_open_index(name: str, table: str, columns: list[str]) -> None:
    op.create_index(name, table, columns, sqlite_where=_PENDING, postgresql_where=_PENDING)


def downgrade() -> None:
    op.execute("DELETE FROM epochs WHERE name = 'event-types'")
    for table in ("event_causes", "event_triggers", "event_starts", "event_deliveries", "event_cursors", "event_outbox"):
        op.drop_table(table)
    for name in ("permission", "owner"):
        op.drop_column("workflow_events", name)
