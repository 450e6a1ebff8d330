"""The twenty-second schema: claims that tasks of runs hold while they last, and questions about values that miss their schema."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"


def upgrade() -> None:
    op.create_table(
        "workflow_claims",
        *(sa.Column(name, sa.Text(), primary_key=True, nullable=False) for name in ("tenant", "run_id", "key")),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("subject", "claim_id")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("token", "lease", "version")),
        sa.Column("state", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "run_id"], ["workflow_runs.tenant", "workflow_runs.id"], name="workflow_claims_run", ondelete="CASCADE"
        ),
    )
    op.add_column("state_held", sa.Column("approval_id", sa.Text(), nullable=False, server_default=""))
    op.add_column("state_held", sa.Column("expires", sa.BigInteger()))


def downgrade() -> None:
    for name in ("expires", "approval_id"):
        op.drop_column("state_held", name)
    op.drop_table("workflow_claims")
