"""Renewal of a run's authority: the roles of a person who signs in again count for their runs, and runs that waited for that go on."""

import structlog
from sqlalchemy import Connection, select

from gateway.storage.database import Batch
from gateway.tasks.log import TaskRow
from gateway.tasks.turns.stores import TaskStores
from policies.callers import Caller
from policies.environment import RulingEnvironment
from policies.tables import grants

_WAKE = "UPDATE workflow_runs SET wake_at = ? WHERE tenant = ? AND id = ? AND waits_for_sign_in = 1"
log = structlog.get_logger()


class RunRenewal:
    """Has the roles that a person has now count for a run of that person, from the person's next look at it."""

    def __init__(self, stores: TaskStores, environment: RulingEnvironment) -> None:
        self._stores = stores
        self._environment = environment

    async def renew(self, caller: Caller, row: TaskRow) -> bool:
        """Renews the roles of a run, and of the runs below it, and wakes those that waited for that. Returns whether it renewed any.

        Does nothing for an agent, whose authority is no fresher than its task's, and while at least half of the time of the roles is left.
        """
        principal, stores = caller.principal, self._stores
        until = self._environment.roles_until(principal.issuer)
        if caller.delegation.path or principal.owner_key != row.owner or not await self._is_due(row):
            return False
        below = await stores.tasks.open_descendants(row)
        record = _record(row, principal.roles)

        def work(batch: Batch) -> int:
            count = stores.grants.renew_roles(batch, principal, row.id, until)
            if count:
                stores.audit.record(batch, record)
                for run_id in (row.id, *(task.id for task in below)):
                    batch.run(_WAKE, (stores.now(), row.tenant, run_id))
            return count

        count = await stores.database.write(work)
        stores.grants.invalidate()
        if count:
            log.info("run_roles_renewed", run=row.id, roles=principal.roles)
        return count > 0

    async def _is_due(self, row: TaskRow) -> bool:
        """Whether less than half of the time is left for which the roles of one of the run's grants count."""
        soon = int((self._environment.now() + self._environment.roles_ttl / 2) * 1_000_000)
        mine = (grants.c.tenant == row.tenant) & (grants.c.task_id == row.id) & (grants.c.roles_until < soon)

        def work(connection: Connection) -> bool:
            return connection.execute(select(grants.c.id).where(mine).limit(1)).first() is not None

        return await self._stores.database.read(work)


def _record(row: TaskRow, roles: tuple[str, ...]) -> dict[str, object]:
    _, issuer, subject = row.owner.split("|", 2)
    members = {"tenant": row.tenant, "decision_id": "", "txn": row.txn, "task_id": row.id}
    return {"kind": "run-roles-renewed", **members, "principal": {"issuer": issuer, "subject": subject}, "roles": list(roles)}
