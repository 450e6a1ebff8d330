"""The eighteenth schema: claims on subjects, effects of calls on them, and the calls that conflicts refused."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"

_OPEN = sa.text("state <> 'ended'")
_HELD = sa.text("state = 'held'")
_UNDER_WAY = sa.text("state = 'under-way'")


def upgrade() -> None:
    _create_claims()
    _create_effects()
    _create_conflicts()


def _texts(*names: str, key: bool = False) -> list["sa.Column[str]"]:
    return [sa.Column(name, sa.Text(), primary_key=key, nullable=False) for name in names]


def _numbers(*names: str) -> list["sa.Column[int]"]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _create_claims() -> None:
    op.create_table(
        "claims",
        *_texts("tenant", "id", key=True),
        *_texts("subject", "effect", "owner", "agent", "chain", "task_id", "txn", "decision_id", "purpose"),
        *_numbers("priority", "token", "created", "until", "cool_down"),
        *_texts("state"),
        sa.Column("ended", sa.BigInteger()),
        *_texts("ended_as", "ended_by"),
    )
    op.create_index("claims_open", "claims", ["tenant", "subject"], sqlite_where=_OPEN, postgresql_where=_OPEN)
    columns = ["tenant", "subject", "effect"]
    op.create_index("claims_held", "claims", columns, unique=True, sqlite_where=_HELD, postgresql_where=_HELD)
    op.create_index("claims_owner", "claims", ["tenant", "owner", "created"], sqlite_where=_OPEN, postgresql_where=_OPEN)
    op.create_index("claims_ended", "claims", ["ended"])


def _create_effects() -> None:
    op.create_table(
        "subject_effects",
        *_texts("tenant", "id", key=True),
        *_texts("subject", "effect", "purpose", "target", "owner", "agent", "chain", "txn", "task_id"),
        *_numbers("own_task"),
        *_texts("claim_id", "state"),
        *_numbers("at", "until"),
    )
    op.create_index("subject_effects_at", "subject_effects", ["tenant", "subject", "at"])
    columns = ["tenant", "subject"]
    op.create_index("subject_effects_open", "subject_effects", columns, sqlite_where=_UNDER_WAY, postgresql_where=_UNDER_WAY)
    op.create_index("subject_effects_old", "subject_effects", ["at"])


def _create_conflicts() -> None:
    op.create_table(
        "subject_conflicts",
        *_texts("tenant", "subject", "effect", "owner", "agent", "reason_id", key=True),
        *_texts("target", "policies", "facts", "decision_id"),
        *_numbers("count", "first_at", "last_at"),
    )
    op.create_index("subject_conflicts_last", "subject_conflicts", ["tenant", "last_at"])
    op.create_index("subject_conflicts_old", "subject_conflicts", ["last_at"])


def downgrade() -> None:
    for table in ("subject_conflicts", "subject_effects", "claims"):
        op.drop_table(table)
