"""Versions of subjects. A ruling that reads facts about a subject compares its version in the commit, and is repeated if it has moved."""

from typing import Final

from sqlalchemy import Connection, select

from gateway.state.tables import subjects
from gateway.storage.batch import Batch
from policies.ids import now_us

_RAISE: Final = (
    "INSERT INTO subjects (tenant, subject, version, updated) VALUES (?, ?, 1, ?) "
    "ON CONFLICT (tenant, subject) DO UPDATE SET version = subjects.version + 1, updated = excluded.updated"
)


def raise_subject_version(batch: Batch, tenant: str, subject: str) -> None:
    """Announces, in the commit of the change, that a fact about the subject has changed. An empty subject has no version.

    The row of the subject stays locked until the commit, so that changes of one subject follow each other.
    """
    if subject:
        batch.run(_RAISE, (tenant, subject, now_us()))


def read_subject_version(connection: Connection, tenant: str, subject: str) -> int:
    """The version of a subject; 0 where no fact about it was ever written."""
    query = select(subjects.c.version).where(subjects.c.tenant == tenant, subjects.c.subject == subject)
    return connection.execute(query).scalar() or 0
