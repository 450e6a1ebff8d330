"""The fourth schema: tickets of agents without token exchange, kills, budgets, approvals, transaction history, and the vault."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_LABELS = {"sensitivity": "0", "clearance": "3"}


def _tickets() -> None:
    op.create_table(
        "tickets",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("hash", sa.Text(), primary_key=True),
        sa.Column("agent", sa.Text(), nullable=False),
        sa.Column("grant_id", sa.Text(), nullable=False),
        sa.Column("not_after", sa.BigInteger(), nullable=False),
    )
    op.create_index("tickets_not_after", "tickets", ["tenant", "not_after"])


def _kills() -> None:
    op.create_table(
        "kills",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("id", sa.Text(), primary_key=True),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("kind", "name", "reason", "by")),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )
    epochs = sa.table("epochs", sa.column("name", sa.Text), sa.column("value", sa.BigInteger))
    op.execute(epochs.insert().values(name="kills", value=0))


def _budgets() -> None:
    op.create_table(
        "budgets",
        *(sa.Column(name, sa.Text(), primary_key=True) for name in ("tenant", "day", "name")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("calls", "cost")),
    )


def _approvals() -> None:
    texts = "owner txn task_id grant_id decision_id act chain definition arguments_hash arguments described policies prompt state"
    op.create_table(
        "approvals",
        sa.Column("tenant", sa.Text(), primary_key=True),
        sa.Column("id", sa.Text(), primary_key=True),
        *(sa.Column(name, sa.Text(), nullable=False) for name in (*texts.split(), "errand", "used_by", "reason")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("needed", "created", "expires")),
        sa.Column("closed", sa.BigInteger()),
    )
    op.create_index("approvals_owner", "approvals", ["tenant", "owner", "created"])
    op.create_index("approvals_arguments", "approvals", ["tenant", "arguments_hash"])
    where = sa.text("closed IS NULL")
    op.create_index("approvals_open", "approvals", ["tenant", "created"], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "approval_votes",
        *(sa.Column(name, sa.Text(), primary_key=True) for name in ("tenant", "approval_id", "voter")),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
    )


def _errands() -> None:
    op.create_table(
        "errands",
        *(sa.Column(name, sa.Text(), primary_key=True) for name in ("tenant", "txn")),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("taint", sa.BigInteger(), nullable=False),
        sa.Column("totals", sa.Text(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
    )
    for name, default in _LABELS.items():
        op.add_column("registrations", sa.Column(name, sa.BigInteger(), nullable=False, server_default=default))
    op.add_column("registrations", sa.Column("sensitivities", sa.Text(), nullable=False, server_default="{}"))


def _server_tasks() -> None:
    op.add_column("mcp_tasks", sa.Column("capabilities", sa.Text(), nullable=False, server_default="{}"))
    op.create_table(
        "mcp_questions",
        *(sa.Column(name, sa.Text(), primary_key=True) for name in ("task_id", "question")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("process", "body")),
    )


def _texts(*names: str) -> list["sa.Column[str]"]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _vault() -> None:
    op.create_table(
        "vault",
        *(sa.Column(name, sa.Text(), primary_key=True) for name in ("tenant", "owner", "issuer", "resource")),
        *_texts("origin", "kek_id", "wrapped", "body"),
        sa.Column("updated", sa.BigInteger(), nullable=False),
    )
    op.create_index("vault_origin", "vault", ["tenant", "owner", "origin"])
    op.create_table(
        "vault_clients",
        *(sa.Column(name, sa.Text(), primary_key=True) for name in ("tenant", "issuer")),
        *_texts("kek_id", "wrapped", "body"),
    )
    op.create_table(
        "vault_leases",
        sa.Column("id", sa.Text(), primary_key=True),
        *_texts("holder"),
        sa.Column("until", sa.BigInteger(), nullable=False),
    )


def _connections() -> None:
    op.create_table(
        "connections",
        sa.Column("id", sa.Text(), primary_key=True),
        *_texts("tenant", "owner", "consent", "state", "browser", "kek_id", "wrapped", "body"),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("given", sa.BigInteger(), nullable=False),
    )
    op.create_index("connections_owner", "connections", ["owner", "until"])
    op.create_index("connections_state", "connections", ["state"])
    op.create_index("connections_until", "connections", ["until"])
    where = sa.text("state = 'TASK_STATE_AUTH_REQUIRED'")
    op.create_index("tasks_awaiting", "tasks", ["tenant", "owner"], sqlite_where=where, postgresql_where=where)


def upgrade() -> None:
    _server_tasks()
    _tickets()
    _kills()
    _budgets()
    _approvals()
    _errands()
    _vault()
    _connections()


def downgrade() -> None:
    op.drop_index("tasks_awaiting", "tasks")
    for name in ("connections", "vault_leases", "vault_clients", "vault"):
        op.drop_table(name)
    op.drop_table("mcp_questions")
    op.drop_column("mcp_tasks", "capabilities")
    op.execute("DELETE FROM epochs WHERE name = 'kills'")
    for name in ("errands", "approval_votes", "approvals", "budgets", "kills", "tickets"):
        op.drop_table(name)
    for name in ("sensitivities", *_LABELS):
        op.drop_column("registrations", name)
