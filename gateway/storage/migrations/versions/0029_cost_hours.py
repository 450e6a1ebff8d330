"""The twenty-ninth schema: sums of the costs of hours that are over, and sums of days in the order in which reports show them."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"

_SPAN = ("tenant", "hour")
_FIGURES = ("amount", "priced", "unpriced", "quarantined", "input_tokens", "output_tokens", "charged")
_IN_BYTE_ORDER = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def _number(name: str, *, is_key: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), primary_key=is_key, nullable=False, autoincrement=False)


def _key(name: str, type_: sa.Text) -> "sa.Column[str]":
    return sa.Column(name, type_, primary_key=True, nullable=False)


def upgrade() -> None:
    op.create_table("cost_hours", _key("tenant", sa.Text()), _number("hour", is_key=True), _number("summed"), _number("begun"))
    op.create_table(
        "cost_hour_sums",
        _key("tenant", sa.Text()),
        _number("hour", is_key=True),
        _key("dimension", sa.Text()),
        *(_key(name, _IN_BYTE_ORDER) for name in ("owner", "name")),
        *map(_number, _FIGURES),
        sa.ForeignKeyConstraint(
            ["tenant", "hour"], ["cost_hours.tenant", "cost_hours.hour"], name="cost_hour_sums_hour", ondelete="CASCADE"
        ),
        sqlite_with_rowid=False,
    )
    _order_sums('"C"')


def downgrade() -> None:
    for table in ("cost_hour_sums", "cost_hours"):
        op.drop_table(table)
    _order_sums('"default"')
    op.execute("UPDATE cost_days SET summed = 1 WHERE summed = 2")


def _order_sums(collation: str) -> None:
    """SQLite orders texts by their bytes always."""
    if op.get_bind().dialect.name == "postgresql":
        for column in ("owner", "name"):
            op.execute(f"ALTER TABLE cost_sums ALTER COLUMN {column} TYPE text COLLATE {collation}")
