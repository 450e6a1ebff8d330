"""The thirty-third schema: legal holds, and indexes by which the deletion of old tasks and histories finds their rows."""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0031"


def upgrade() -> None:
    names = ("tenant", "id", "kind", "name", "reason", "placed_by")
    columns = [sa.Column(name, sa.Text(), primary_key=name in ("tenant", "id"), nullable=False) for name in names]
    op.create_table("legal_holds", *columns, sa.Column("placed_at", sa.BigInteger(), nullable=False))
    op.create_index("legal_holds_target", "legal_holds", ["tenant", "kind", "name"], unique=True)
    op.create_index("workflow_hops_run", "workflow_hops", ["tenant", "run_id"])
    op.create_index("errands_updated", "errands", ["tenant", "updated"])
    op.execute("INSERT INTO epochs (name, value) VALUES ('retention', 0)")


def downgrade() -> None:
    op.execute("DELETE FROM epochs WHERE name = 'retention'")
    op.drop_index("errands_updated", "errands")
    op.drop_index("workflow_hops_run", "workflow_hops")
    op.drop_table("legal_holds")
