"""Periodic work on claims: closes those whose lease and cool-down are over, deletes old ones, and subjects that rest."""

from functools import partial
from typing import Final

from gateway.state.claims.rows import close_over, find_over
from gateway.state.subjects.clock import SubjectClock
from gateway.state.subjects.pruning import START, Place, prune_subjects
from gateway.storage.database import Batch, Database
from policies.delegation.facts import SECOND

KEPT_DAYS: Final = 30  # for which a claim that has ended can be looked up
PRUNED_MAX: Final = 1000  # in one commit
SUBJECTS_AT_ONCE: Final = 20  # whose locks a commit that closes claims holds
_PRUNE: Final = "DELETE FROM claims WHERE (tenant, id) IN (SELECT tenant, id FROM claims WHERE ended <= ? AND state = 'ended' LIMIT ?)"


class ClaimSweep:
    """The work on the claims of all tenants. Any process may do it; while one does, others leave it alone."""

    def __init__(self, database: Database, clock: SubjectClock) -> None:
        self._database = database
        self._clock = clock
        self._place = START  # of the next subjects to prune

    async def run_once(self) -> int:
        """Returns how many claims it deleted. Each round also looks at some of the subjects, and deletes those that rest."""
        due = await self._database.read(lambda connection: find_over(connection, self._clock.read(connection)))
        for at in range(0, len(due), SUBJECTS_AT_ONCE):
            some = due[at : at + SUBJECTS_AT_ONCE]
            await self._database.write_alone("claims", partial(self._close, subjects=some))
        pruned, self._place = await self._database.write_alone("claims", self._prune) or (0, self._place)
        return pruned

    def _close(self, batch: Batch, subjects: list[tuple[str, str]]) -> None:
        for tenant, subject in subjects:
            close_over(batch, tenant, subject, self._clock)

    def _prune(self, batch: Batch) -> tuple[int, Place]:
        now = self._clock.read(batch.connection)
        pruned = batch.run(_PRUNE, (now - KEPT_DAYS * 86_400 * SECOND, PRUNED_MAX))
        return pruned, prune_subjects(batch, self._place, now)
