"""Everybody's tasks of a tenant, for people who may read its audit. Each look at the task of another person is a record of the audit."""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.admin.demand import demand
from gateway.storage.database import Database
from gateway.tasks.log import TaskRow, UnknownTask
from gateway.tasks.pages import find_task
from policies.callers import Caller
from policies.delegation.rulings import Act

May = Callable[[Caller, Act], bool]
Kept = Callable[[Caller, Act, str], Awaitable[object]]
SEE, LIST = replace(READ_AUDIT, verb="see-task"), replace(READ_AUDIT, verb="list-tasks")


class Oversight:
    """`may` leaves no trace; `kept` keeps a decision about a task and raises Refused unless it is a Grant."""

    def __init__(self, database: Database, may: May, kept: Kept) -> None:
        self._database = database
        self._may = may
        self._kept = kept

    async def task(self, caller: Caller, task_id: str) -> TaskRow:
        """A task of anybody's in the caller's tenant. Raises UnknownTask, also for those who may not look."""
        if not self._may(caller, SEE):
            raise UnknownTask
        tenant = caller.principal.tenant
        row = await self._database.read(lambda connection: find_task(connection, tenant, task_id))
        await self._kept(caller, SEE, row.id)
        return row

    async def check_list(self, caller: Caller) -> None:
        """Raises Refused for those who may not list the tasks of others."""
        await demand(caller, lambda who, act: self._kept(who, act, ""), LIST)
