"""Periodic work on effects: closes those that ended elsewhere, keeps and ends their claims, and deletes old ones.

The work on each subject is done under its lock, and raises its version, so that no ruling goes by facts from before.
"""

from functools import partial
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import Connection, Row

from adapters.contract import VendorRef
from adapters.upstream.pending_consent import is_unsent
from gateway.state.effects.states import DONE, FAILED, UNKNOWN
from gateway.state.subjects.clock import SubjectClock
from gateway.state.subjects.queries import run_query
from gateway.state.subjects.versions import lock_subject, raise_subject_version
from gateway.storage.database import Batch, Database
from policies.delegation.facts import SECOND

TASK_LEASE: Final = 3600 * SECOND  # of a claim that lasts as long as a task; it is renewed while the task lasts
RENEWED_BELOW: Final = TASK_LEASE * 2 // 3  # left of a lease: fewer changes of the subject than with each sweep
KEPT_DAYS: Final = 400  # for which an effect counts as the last one
SUBJECTS_MAX: Final = 500  # that one sweep works on
SUBJECTS_AT_ONCE: Final = 20  # whose locks one commit holds
PRUNED_MAX: Final = 1000  # effects that one sweep deletes
COMPLETED: Final = "TASK_STATE_COMPLETED"
# `own_task > 0` and not `= 1`: the index of open effects is to be used, and not that of all that ever had a task.
_TASK_ENDED: Final = (
    "(t.id IS NULL OR t.state IN ('TASK_STATE_COMPLETED', 'TASK_STATE_FAILED', 'TASK_STATE_CANCELED', 'TASK_STATE_REJECTED'))"
)
_OF_TASK: Final = "LEFT JOIN tasks t ON t.tenant = e.tenant AND t.id = e.task_id"
_OF_CLAIM: Final = "JOIN subject_effects e ON e.tenant = c.tenant AND e.claim_id = c.id AND e.claim_id <> '' WHERE c.state = 'held' AND"
DUE: Final = (
    "SELECT tenant, subject FROM subject_effects WHERE state = 'under-way' AND own_task = 0 AND until <= ? "  # noqa: S608 (our own text)
    f"UNION SELECT e.tenant, e.subject FROM subject_effects e {_OF_TASK} WHERE e.state = 'under-way' AND e.own_task > 0 AND {_TASK_ENDED} "
    f"UNION SELECT c.tenant, c.subject FROM claims c {_OF_CLAIM} e.state <> 'under-way' "
    f"UNION SELECT c.tenant, c.subject FROM claims c {_OF_CLAIM} e.own_task = 1 AND c.until > ? AND c.until < ? "
    "ORDER BY tenant, subject LIMIT ?"
)
_OLD: Final = "SELECT tenant, id, subject FROM subject_effects WHERE at <= ? AND state <> 'under-way' ORDER BY at LIMIT ?"
_OLD_SUBJECTS: Final = f"SELECT DISTINCT tenant, subject FROM ({_OLD}) AS old ORDER BY tenant, subject LIMIT ?"  # noqa: S608 (our own text)
_CLOSE_CALLS: Final = (
    "UPDATE subject_effects SET state = 'unknown' WHERE tenant = ? AND subject = ? AND state = 'under-way' AND own_task = 0 AND until <= ?"
)
_ENDED_TASKS: Final = (
    f"SELECT e.id, t.state, t.vendor_ref FROM subject_effects e {_OF_TASK} "  # noqa: S608 (our own text)
    f"WHERE e.tenant = ? AND e.subject = ? AND e.state = 'under-way' AND e.own_task > 0 AND {_TASK_ENDED}"
)
_CLOSE_TASK: Final = "UPDATE subject_effects SET state = ?, until = ? WHERE tenant = ? AND id = ? AND state = 'under-way'"
_EFFECT_OF_CLAIM: Final = (
    "EXISTS (SELECT 1 FROM subject_effects WHERE subject_effects.tenant = claims.tenant AND subject_effects.claim_id = claims.id "
    "AND subject_effects.claim_id <> '' AND subject_effects.state"
)
RENEW_CLAIMS: Final = (
    "UPDATE claims SET until = ? WHERE tenant = ? AND subject = ? AND state = 'held' "  # noqa: S608 (our own text)
    f"AND until > ? AND until < ? AND {_EFFECT_OF_CLAIM} = 'under-way' AND subject_effects.own_task = 1)"
)
_END_CLAIMS: Final = (
    "UPDATE claims SET state = 'ended', cool_down = 0, until = ?, ended = ?, ended_as = 'released' "  # noqa: S608 (our own text)
    f"WHERE tenant = ? AND subject = ? AND state = 'held' AND {_EFFECT_OF_CLAIM} = 'failed')"
)
RELEASE_CLAIMS: Final = (
    "UPDATE claims SET state = CASE WHEN cool_down > 0 THEN 'cooling' ELSE 'ended' END, until = ?, "  # noqa: S608 (our own text)
    f"ended = ?, ended_as = 'released' WHERE tenant = ? AND subject = ? AND state = 'held' AND {_EFFECT_OF_CLAIM} <> 'under-way')"
)
_PRUNE: Final = "DELETE FROM subject_effects WHERE tenant = ? AND subject = ? AND at <= ? AND state <> 'under-way'"
_PRUNE_CONFLICTS: Final = "DELETE FROM subject_conflicts WHERE last_at <= ?"
_decode_ref: Final = msgspec.json.Decoder(VendorRef).decode
log = structlog.get_logger()
Subject = tuple[str, str]  # tenant and name


class EffectSweep:
    """One round of the work on the effects of all tenants. Any process may do it; while one does, others leave it alone."""

    def __init__(self, database: Database, clock: SubjectClock) -> None:
        self._database = database
        self._clock = clock

    async def run_once(self) -> None:
        """Raises ReadFailed and WriteFailed; the next round goes on."""
        for due in _in_portions(await self._database.read(self._find_due)):
            await self._database.write_alone("effects", partial(self._tend_all, subjects=due))
        for old in _in_portions(await self._database.read(self._find_old)):
            await self._database.write_alone("effects", partial(self._prune_all, subjects=old))
        await self._database.write_alone("effects", lambda batch: batch.run(_PRUNE_CONFLICTS, (self._oldest(batch.connection),)))

    def _find_due(self, connection: Connection) -> list[Subject]:
        now = self._clock.read(connection)
        return [(row.tenant, row.subject) for row in run_query(connection, DUE, now, now, now + RENEWED_BELOW, SUBJECTS_MAX)]

    def _find_old(self, connection: Connection) -> list[Subject]:
        rows = run_query(connection, _OLD_SUBJECTS, self._oldest(connection), PRUNED_MAX, SUBJECTS_MAX)
        return [(row.tenant, row.subject) for row in rows]

    def _oldest(self, connection: Connection) -> int:
        return self._clock.read(connection) - KEPT_DAYS * 86_400 * SECOND

    def _tend_all(self, batch: Batch, subjects: list[Subject]) -> None:
        for tenant, subject in subjects:
            lock_subject(batch, tenant, subject)
            if _tend(batch, (tenant, subject), self._clock.read(batch.connection)):
                raise_subject_version(batch, tenant, subject)

    def _prune_all(self, batch: Batch, subjects: list[Subject]) -> None:
        for tenant, subject in subjects:
            lock_subject(batch, tenant, subject)
            if batch.run(_PRUNE, (tenant, subject, self._oldest(batch.connection))):
                raise_subject_version(batch, tenant, subject)


def _in_portions(subjects: list[Subject]) -> list[list[Subject]]:
    return [subjects[at : at + SUBJECTS_AT_ONCE] for at in range(0, len(subjects), SUBJECTS_AT_ONCE)]


def _tend(batch: Batch, subject: Subject, now: int) -> int:
    """Does the work on one subject, which the caller has locked. Returns how many rows have changed."""
    changed = batch.run(_CLOSE_CALLS, (*subject, now))
    for row in list(run_query(batch.connection, _ENDED_TASKS, *subject)):
        changed += batch.run(_CLOSE_TASK, (_state_after(row), now, subject[0], row.id))
    changed += batch.run(RENEW_CLAIMS, (now + TASK_LEASE, *subject, now, now + RENEWED_BELOW))
    changed += batch.run(_END_CLAIMS, (now, now, *subject))
    return changed + batch.run(RELEASE_CLAIMS, (now, now, *subject))


def _state_after(row: "Row[Any]") -> str:
    """What became of the effect of a task that has ended, or is deleted. One that waited for a consent was not sent."""
    if row.state == COMPLETED:
        return DONE
    try:
        return FAILED if row.vendor_ref and is_unsent(_decode_ref(row.vendor_ref)) else UNKNOWN
    except msgspec.MsgspecError as error:
        log.error("vendor_ref_unreadable", effect_id=row.id, error=str(error))
        return UNKNOWN
