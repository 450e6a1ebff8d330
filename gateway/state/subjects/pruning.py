"""Deletes the rows of subjects that rest, a page at a time. Their versions stay below all later ones, see `versions.py`."""

from typing import Final

from gateway.state.subjects.queries import run_query
from gateway.storage.batch import Batch

PAGE: Final = 500  # rows that one round looks at
KEPT_US: Final = 30 * 86_400_000_000  # since the last change of a fact
Place = tuple[str, str]
START: Final[Place] = ("", "")
GAP: Final = 1_000_000  # of versions below the floor: more than a subject passes through while one ruling is under way
_PAGE: Final = "SELECT tenant, subject, version, updated FROM subjects WHERE (tenant, subject) > (?, ?) ORDER BY tenant, subject LIMIT ?"
_REST: Final = (
    "AND NOT EXISTS (SELECT 1 FROM claims WHERE claims.tenant = subjects.tenant AND claims.subject = subjects.subject "
    "AND claims.state <> 'ended') AND NOT EXISTS "
    "(SELECT 1 FROM subject_effects e WHERE e.tenant = subjects.tenant AND e.subject = subjects.subject)"
)
_DELETE: Final = (
    "DELETE FROM subjects WHERE tenant = ? AND subject = ? AND version = ? AND version + ? <= "  # noqa: S608 (our own text)
    f"(SELECT floor.version FROM subjects AS floor WHERE floor.tenant = ? AND floor.subject = '') {_REST}"
)
_RAISE_FLOOR: Final = (
    "INSERT INTO subjects (tenant, subject, version, updated) VALUES (?, '', ?, ?) ON CONFLICT (tenant, subject) "
    "DO UPDATE SET version = excluded.version, updated = excluded.updated WHERE subjects.version < excluded.version"
)


def prune_subjects(batch: Batch, place: Place, now: int) -> Place:
    """Looks at the rows after `place`, and returns the place of the next round.

    A row is deleted by a round after the one that raised the floor to GAP above its version. So a statement that is under way while the
    row goes has seen the floor, and begins the subject above it. A ruling that has read the old version begins the subject at the next
    one, far below the floor, so that a ruling that has read the floor finds that the subject has moved.
    """
    rows = list(run_query(batch.connection, _PAGE, *place, PAGE))
    floors = dict[str, int]()
    for row in rows:
        if row.subject and row.updated <= now - KEPT_US:
            deleted = batch.run(_DELETE, (row.tenant, row.subject, row.version, GAP, row.tenant))
            if not deleted:
                floors[row.tenant] = max(floors.get(row.tenant, 0), row.version + GAP)
    for tenant, version in sorted(floors.items()):
        batch.run(_RAISE_FLOOR, (tenant, version, now))
    return (rows[-1].tenant, rows[-1].subject) if len(rows) == PAGE else START
