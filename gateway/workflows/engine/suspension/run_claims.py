"""Claims that tasks of runs hold: renewed while the run lasts, whether a process works on it or not, and released when it ends."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, func, select

from gateway.state.claims.claim import Claim
from gateway.state.claims.rows import find_claim
from gateway.state.claims.store import SubjectClaims
from gateway.state.subjects.queries import run_query
from gateway.state.subjects.versions import lock_subject, raise_and_read_version
from gateway.storage.database import Batch
from gateway.storage.tables import ENDED_STATES, tasks
from gateway.workflows.runs.store import RunKey, RunStore, wake
from gateway.workflows.runs.tables import workflow_claims

RENEWED_MAX: Final = 1000  # subjects whose claims one round renews
SUBJECTS_AT_ONCE: Final = 20  # whose locks one commit holds
WAITING: Final = "waiting"
HELD: Final = "held"
LOST: Final = "lost"
TOLD: Final = "told"  # lost, and the run was told
_KEEP: Final = (
    "INSERT INTO workflow_claims (tenant, run_id, key, subject, claim_id, token, lease, version, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT (tenant, run_id, key) DO UPDATE SET claim_id = excluded.claim_id, token = excluded.token, version = excluded.version, "
    "state = excluded.state"
)
_SET_STATE: Final = "UPDATE workflow_claims SET state = ? WHERE tenant = ? AND run_id = ? AND key = ?"
_SET_VERSION: Final = "UPDATE workflow_claims SET version = ? WHERE tenant = ? AND run_id = ? AND key = ?"
_DELETE: Final = "DELETE FROM workflow_claims WHERE tenant = ? AND run_id = ? AND key = ?"
_DELETE_ALL: Final = "DELETE FROM workflow_claims WHERE tenant = ? AND run_id = ?"
_WORKED_ON: Final = (
    "FROM workflow_claims w JOIN tasks t ON t.tenant = w.tenant AND t.id = w.run_id WHERE w.tenant = claims.tenant "
    "AND w.claim_id = claims.id AND w.state = 'held' AND claims.until < ? + w.lease * 2 / 3 "
    "AND t.state NOT IN ('TASK_STATE_COMPLETED', 'TASK_STATE_FAILED', 'TASK_STATE_CANCELED', 'TASK_STATE_REJECTED')"
)
_DUE: Final = (
    "SELECT DISTINCT tenant, subject FROM claims WHERE state = 'held' AND until > ? "  # noqa: S608 (our own text)
    f"AND EXISTS (SELECT 1 {_WORKED_ON}) ORDER BY tenant, subject LIMIT {RENEWED_MAX}"
)
_RENEW: Final = (
    "UPDATE claims SET until = ? + (SELECT MAX(w.lease) FROM workflow_claims w WHERE w.tenant = claims.tenant "  # noqa: S608 (our own text)
    "AND w.claim_id = claims.id) "
    f"WHERE tenant = ? AND subject = ? AND state = 'held' AND until > ? AND EXISTS (SELECT 1 {_WORKED_ON})"
)
_WAIT_ON: Final = "UPDATE workflow_claims SET version = ? WHERE tenant = ? AND subject = ? AND state = 'waiting' AND version = ?"
_MARK_LOST: Final = (
    "UPDATE workflow_claims SET state = 'lost' WHERE state = 'held' AND NOT EXISTS (SELECT 1 FROM claims WHERE "
    "claims.tenant = workflow_claims.tenant AND claims.id = workflow_claims.claim_id AND claims.token = workflow_claims.token "
    "AND claims.state = 'held' AND claims.until > ?)"
)
_subjects: Final = (
    "SELECT w.tenant, w.run_id, w.key, s.version FROM workflow_claims w JOIN subjects s ON s.tenant = w.tenant AND s.subject = w.subject "
    "JOIN tasks t ON t.tenant = w.tenant AND t.id = w.run_id WHERE w.state = 'waiting' AND s.version <> w.version AND t.runner = ''"
)


class KeptClaim(Struct, frozen=True):
    """A claim that the task with the key `key` holds. `lease`: microseconds."""

    run: RunKey
    key: str
    subject: str
    claim_id: str = ""
    token: int = 0
    lease: int = 0
    version: int = 0
    state: str = HELD


class RunClaims:
    """Claims of the runs of all tenants, as rows beside those of the subjects. In this process, tasks learn at once of a loss."""

    def __init__(self, store: RunStore, claims: SubjectClaims) -> None:
        self._store = store
        self._database = store.database
        self._claims = claims
        self._known: set[RunKey] = set()  # runs that had claims in this process
        self._watchers: dict[tuple[RunKey, str], Callable[[], None]] = {}

    def keep(self, batch: Batch, kept: KeptClaim) -> None:
        """Stores that a task holds a claim, or waits for one."""
        self._known.add(kept.run)
        values = (kept.subject, kept.claim_id, kept.token, kept.lease, kept.version, kept.state)
        batch.run(_KEEP, (kept.run.tenant, kept.run.id, kept.key, *values))

    async def wait(self, kept: KeptClaim) -> None:
        """Has the run go on when anything changes about the subject. It was refused when the subject had this version."""
        await self._database.write(lambda batch: self.keep(batch, kept))

    async def stop_waiting(self, run: RunKey, key: str) -> None:
        await self._database.write(lambda batch: batch.run(_DELETE, (run.tenant, run.id, key)))

    async def states_of(self, run: RunKey) -> dict[str, str]:
        """The state of each claim that the run has not released, by the key of its task."""
        mine = (workflow_claims.c.tenant == run.tenant) & (workflow_claims.c.run_id == run.id)
        query = select(workflow_claims.c.key, workflow_claims.c.state).where(mine)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        if rows:
            self._known.add(run)
        return {row.key: row.state for row in rows}

    async def is_held(self, tenant: str, claim_id: str, token: int) -> bool:
        """Whether the claim with this token is still its holder's."""

        def work(connection: Connection) -> bool:
            found = find_claim(connection, tenant, claim_id)
            return found is not None and found.token == token and found.is_held(self._claims.clock.read(connection))

        return await self._database.read(work)

    async def mark_told(self, run: RunKey, key: str) -> None:
        """The run knows that it has lost the claim, in each turn from now on."""
        await self._database.write(lambda batch: batch.run(_SET_STATE, (TOLD, run.tenant, run.id, key)))

    async def release(self, run: RunKey, key: str) -> bool:
        """Ends the claim of a task, unless other tasks of the run or of runs above it hold it too. Returns False where it was lost."""
        return await self._database.write(lambda batch: self._release(batch, run, key))

    async def release_unkept(self, run: RunKey, claim: Claim) -> None:
        """Ends a claim that the run has taken, unless one of its tasks holds it."""

        def work(batch: Batch) -> None:
            lock_subject(batch, run.tenant, claim.subject)
            if _is_last_holder(batch, run, claim):
                self._claims.release_in(batch, run.tenant, claim)

        await self._database.write(work)

    async def release_known(self, run: RunKey) -> None:
        """Ends the claims of a run that this process has seen; `tend` ends those of others."""
        if run in self._known:
            await self.release_all(run)
            self._known.discard(run)

    async def release_all(self, run: RunKey) -> None:
        """Ends all claims that a run still holds."""
        for key, state in (await self.states_of(run)).items():
            if state == HELD:
                await self.release(run, key)

    def _release(self, batch: Batch, run: RunKey, key: str) -> bool:
        columns = workflow_claims.c
        mine = (columns.tenant == run.tenant) & (columns.run_id == run.id) & (columns.key == key)
        row = batch.connection.execute(select(workflow_claims).where(mine)).first()
        if row is None:
            return True
        if row.state == WAITING:
            batch.run(_DELETE, (run.tenant, run.id, key))
            return True
        lock_subject(batch, run.tenant, row.subject)
        claim = find_claim(batch.connection, run.tenant, row.claim_id)
        if claim is None or claim.token != row.token or not claim.is_held(self._claims.clock.read(batch.connection)):
            batch.run(_SET_STATE, (TOLD, run.tenant, run.id, key))
            return False
        batch.run(_DELETE, (run.tenant, run.id, key))
        if _is_last_holder(batch, run, claim):
            self._claims.release_in(batch, run.tenant, claim)
        return True

    def watch(self, run: RunKey, key: str, on_loss: Callable[[], None]) -> Callable[[], None]:
        """Has `on_loss` called when the task has lost its claim. Returns what ends that."""
        self._watchers[run, key] = on_loss
        return lambda: self._watchers.pop((run, key), None) and None

    async def tend(self) -> int:
        """Renews the claims of open runs and releases those of ended ones; has runs go on that lost a claim, or that can get one.

        Returns how many claims runs hold or wait for.
        """
        count = await self._database.read(lambda connection: connection.execute(_COUNT).scalar_one())
        if not count:
            return 0
        await self._end_of_ended()
        due = await self._database.read(self._find_due)
        for at in range(0, len(due), SUBJECTS_AT_ONCE):
            some = due[at : at + SUBJECTS_AT_ONCE]
            await self._database.write_alone("run-claims", partial(self._renew, subjects=some))
        await self._database.write_alone("run-claims", self._tend)
        if self._watchers:
            for run, key in await self._database.read(_lost_keys):
                if (on_loss := self._watchers.get((run, key))) is not None:
                    on_loss()
        return int(count)

    async def _end_of_ended(self) -> None:
        """Releases what runs hold that have ended: were canceled or killed, or whose process ended before it could."""
        for run in await self._database.read(lambda connection: _runs_of(connection, tasks.c.state.in_(ENDED_STATES))):
            await self.release_all(run)
            await self._database.write(partial(_forget, run))

    def _find_due(self, connection: Connection) -> list[tuple[str, str]]:
        """The subjects (tenant and name) with claims to renew."""
        now = self._claims.clock.read(connection)
        return [(row.tenant, row.subject) for row in run_query(connection, _DUE, now, now)]

    def _renew(self, batch: Batch, subjects: Sequence[tuple[str, str]]) -> None:
        """Renews claims under the locks of their subjects. Runs that wait for them go on waiting, since nothing has come free."""
        for tenant, subject in subjects:
            lock_subject(batch, tenant, subject)
            now = self._claims.clock.read(batch.connection)
            if batch.run(_RENEW, (now, tenant, subject, now, now)):
                version = raise_and_read_version(batch, tenant, subject)
                batch.run(_WAIT_ON, (version, tenant, subject, version - 1))

    def _tend(self, batch: Batch) -> None:
        now = self._claims.clock.read(batch.connection)
        batch.run(_MARK_LOST, (now,))
        rests = (tasks.c.runner == "") & (workflow_claims.c.state == LOST)
        for run, key in _keys_of(batch.connection, rests):
            batch.run(_SET_STATE, (TOLD, run.tenant, run.id, key))
            wake(batch, run, self._store.now())
        for row in list(batch.connection.exec_driver_sql(_subjects)):
            batch.run(_SET_VERSION, (row.version, row.tenant, row.run_id, row.key))
            wake(batch, RunKey(row.tenant, row.run_id), self._store.now())


_COUNT: Final = select(func.count()).select_from(workflow_claims)
_IS_TASK: Final = (tasks.c.tenant == workflow_claims.c.tenant) & (tasks.c.id == workflow_claims.c.run_id)


def _forget(run: RunKey, batch: Batch) -> None:
    batch.run(_DELETE_ALL, (run.tenant, run.id))


def _runs_of(connection: Connection, wanted: Any) -> list[RunKey]:
    query = select(workflow_claims.c.tenant, workflow_claims.c.run_id).distinct().join(tasks, _IS_TASK).where(wanted)
    return [RunKey(row.tenant, row.run_id) for row in connection.execute(query)]


def _keys_of(connection: Connection, wanted: Any) -> list[tuple[RunKey, str]]:
    columns = workflow_claims.c
    query = select(columns.tenant, columns.run_id, columns.key).join(tasks, _IS_TASK).where(wanted)
    return [(RunKey(row.tenant, row.run_id), row.key) for row in connection.execute(query)]


def _lost_keys(connection: Connection) -> list[tuple[RunKey, str]]:
    return _keys_of(connection, workflow_claims.c.state.in_((LOST, TOLD)))


def _is_last_holder(batch: Batch, run: RunKey, claim: Claim) -> bool:
    """Whether the claim is the run's own, and no other task holds it: of this run, or of a run below it."""
    same = (workflow_claims.c.tenant == run.tenant) & (workflow_claims.c.claim_id == claim.id)
    others = batch.connection.execute(select(workflow_claims.c.key).where(same).limit(1)).first()
    return others is None and claim.holder.task_id == run.id
