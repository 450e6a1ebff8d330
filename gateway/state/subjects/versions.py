"""Versions of subjects. A ruling that reads facts about a subject compares its version in the commit, and is repeated if it has moved.

The row without a subject has the highest version of those that were deleted after a long rest (`pruning.py`). A subject without a row has
that version, so that the versions of a subject, which are the fencing tokens of its claims, only grow.
"""

from typing import Final

from sqlalchemy import Connection

from gateway.state.subjects.queries import run_query
from gateway.state.tables import subjects
from gateway.storage.batch import Batch, GuardedUpsert
from policies.delegation.facts import FactsChanged
from policies.ids import now_us

VERSION: Final = (  # the marks stand for tenant, subject and tenant
    "COALESCE((SELECT version FROM subjects WHERE tenant = ? AND subject = ?), "
    "(SELECT version FROM subjects WHERE tenant = ? AND subject = ''), 0)"
)
_FLOOR: Final = "COALESCE((SELECT pruned.version FROM subjects AS pruned WHERE pruned.tenant = ? AND pruned.subject = ''), 0)"
_RAISE: Final = (
    f"INSERT INTO subjects (tenant, subject, version, updated) VALUES (?, ?, 1 + {_FLOOR}, ?) "  # noqa: S608 (our own text)
    "ON CONFLICT (tenant, subject) DO UPDATE SET version = subjects.version + 1, updated = excluded.updated"
)
_RAISE_IF_SAME: Final = GuardedUpsert(subjects, ("tenant", "subject", "version", "updated"), ("tenant", "subject"), "version", FactsChanged)
_LOCK: Final = (
    f"INSERT INTO subjects (tenant, subject, version, updated) VALUES (?, ?, {_FLOOR}, ?) "  # noqa: S608 (our own text)
    "ON CONFLICT (tenant, subject) DO UPDATE SET updated = subjects.updated"
)


def raise_subject_version(batch: Batch, tenant: str, subject: str) -> None:
    """Announces, in the commit of the change, that a fact about the subject has changed. An empty subject has no version.

    The row of the subject stays locked until the commit, so that changes of one subject follow each other.
    """
    if subject:
        batch.run(_RAISE, (tenant, subject, tenant, now_us()))


def raise_and_read_version(batch: Batch, tenant: str, subject: str) -> int:
    """Raises the version of a subject, as `raise_subject_version` does, and returns it."""
    (row,) = run_query(batch.connection, f"{_RAISE} RETURNING version", tenant, subject, tenant, now_us())
    return int(row.version)


def read_subject_version(connection: Connection, tenant: str, subject: str) -> int:
    """Returns the version of a subject; 0 where no fact about any was ever written."""
    (row,) = run_query(connection, f"SELECT {VERSION} AS version", tenant, subject, tenant)
    return int(row.version)


def raise_unmoved_version(batch: Batch, tenant: str, subject: str, version: int) -> None:
    """Raises the version of a subject that still has `version`. Else the batch raises FactsChanged, when it writes its rows."""
    batch.update(_RAISE_IF_SAME, (tenant, subject, version + 1, now_us()))


def lock_subject(batch: Batch, tenant: str, subject: str) -> None:
    """Locks the row of a subject until the commit, without announcing a change. What is read next is what the last commit left.

    SQLite has one writer, whose transaction locks everything.
    """
    if not batch.is_sqlite and batch.is_first_lock((tenant, subject)):
        batch.run(_LOCK, (tenant, subject, tenant, now_us()))
