"""The twenty-sixth schema: indexes by which rulings and sweeps read a bounded number of rows, and the floor of the board's versions."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"

NOT_FAILED = "state <> 'failed'"
ENDED = "state <> 'under-way'"
CLAIMED = "claim_id <> ''"
PARTIAL = (
    ("subject_effects_claim", "subject_effects", ["tenant", "claim_id"], CLAIMED),
    ("subject_effects_last", "subject_effects", ["tenant", "subject", "effect", "at"], NOT_FAILED),
    ("subject_effects_tasks", "subject_effects", ["tenant", "subject"], "own_task = 1"),
    ("subject_effects_agent", "subject_effects", ["tenant", "subject", "agent", "at"], NOT_FAILED),
)


def upgrade() -> None:
    for name, table, columns, condition in PARTIAL:
        op.create_index(name, table, columns, sqlite_where=sa.text(condition), postgresql_where=sa.text(condition))
    op.drop_index("subject_effects_old", "subject_effects")
    op.create_index("subject_effects_old", "subject_effects", ["at"], sqlite_where=sa.text(ENDED), postgresql_where=sa.text(ENDED))
    op.create_index("workflow_claims_claim", "workflow_claims", ["tenant", "claim_id"])
    op.create_index("costs_old", "costs", ["at"])
    op.add_column("state_counters", sa.Column("floor", sa.BigInteger(), nullable=False, server_default="0"))
    op.execute("UPDATE state_counters SET floor = pruned")  # the version of a change is at most its number


def downgrade() -> None:
    op.drop_column("state_counters", "floor")
    op.drop_index("costs_old", "costs")
    op.drop_index("workflow_claims_claim", "workflow_claims")
    op.drop_index("subject_effects_old", "subject_effects")
    op.create_index("subject_effects_old", "subject_effects", ["at"])
    for name, table, _, _ in reversed(PARTIAL):
        op.drop_index(name, table)
