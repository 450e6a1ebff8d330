"""The fourteenth schema: the consent and the prompts that a task waits for are found by an index, and sessions have locks of their own."""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"

_AWAITING = sa.text("state = 'TASK_STATE_AUTH_REQUIRED'")
_PENDING_KEY = "waits_for_consent"
_ENDED = ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED")


def upgrade() -> None:
    op.add_column("tasks", sa.Column("awaited_connection_id", sa.Text()))
    op.drop_index("tasks_awaiting", "tasks")
    op.create_index("tasks_awaiting", "tasks", ["awaited_connection_id"], sqlite_where=_AWAITING, postgresql_where=_AWAITING)
    _create_task_prompts()
    _create_session_locks()
    _read_vendor_refs()


def _create_task_prompts() -> None:
    op.create_table(
        "task_prompts",
        *(sa.Column(name, sa.Text(), primary_key=True) for name in ("tenant", "task_id", "prompt_digest")),
        sa.ForeignKeyConstraint(["tenant", "task_id"], ["tasks.tenant", "tasks.id"], name="task_prompts_task", ondelete="CASCADE"),
    )
    op.create_index("task_prompts_digest", "task_prompts", ["tenant", "prompt_digest"])


def _create_session_locks() -> None:
    """A lock that a process holds in the table of the vault's leases moves along: a process's id is no holder of the vault's."""
    op.create_table(
        "session_locks",
        sa.Column("id", sa.Text(), primary_key=True),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["holder"], ["processes.id"], name="session_locks_holder", ondelete="CASCADE"),
    )
    op.execute(
        "INSERT INTO session_locks (id, holder, until) "
        "SELECT id, holder, until FROM vault_leases WHERE holder IN (SELECT id FROM processes)"
    )
    op.execute("DELETE FROM vault_leases WHERE substr(holder, 1, 2) = 'p_'")


def _read_vendor_refs() -> None:
    """Reads what tasks wait for from the JSON that holds it in full."""
    connection = op.get_bind()
    tasks = sa.table("tasks", *(sa.column(name, sa.Text) for name in ("tenant", "id", "state", "vendor_ref")))
    waiting = sa.select(tasks.c.tenant, tasks.c.id, tasks.c.vendor_ref).where(tasks.c.state.not_in(_ENDED), tasks.c.vendor_ref != "{}")
    for row in connection.execute(waiting).all():
        ref = json.loads(row.vendor_ref)
        key = {"tenant": row.tenant, "task_id": row.id}
        if _PENDING_KEY in ref.get("extra", {}):
            awaited = {"awaited": ref.get("task_id", "")}
            connection.execute(
                sa.text("UPDATE tasks SET awaited_connection_id = :awaited WHERE tenant = :tenant AND id = :task_id"), key | awaited
            )
        for digest in {_digest(prompt["id"]) for prompt in ref.get("prompts", ())}:
            connection.execute(
                sa.text("INSERT INTO task_prompts (tenant, task_id, prompt_digest) VALUES (:tenant, :task_id, :digest)"),
                key | {"digest": digest},
            )


def _digest(prompt_id: str) -> str:
    return hashlib.sha256(prompt_id.encode()).hexdigest()


def downgrade() -> None:
    op.execute("INSERT INTO vault_leases (id, holder, until) SELECT id, holder, until FROM session_locks")
    op.drop_table("session_locks")
    op.drop_table("task_prompts")
    op.drop_index("tasks_awaiting", "tasks")
    op.drop_column("tasks", "awaited_connection_id")
    op.create_index("tasks_awaiting", "tasks", ["tenant", "owner"], sqlite_where=_AWAITING, postgresql_where=_AWAITING)
