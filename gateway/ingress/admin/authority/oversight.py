"""Access to all tasks of a tenant: reading with audit:read, cancelling with policy:write. Each access is recorded in the audit."""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from gateway.audit.decisions import READ_AUDIT
from gateway.audit.retention.task_rows import owner_of_deleted
from gateway.calls.turns.cancellation import CANCEL_TASK
from gateway.ingress.admin.demand import require_permission
from gateway.storage.database import Database
from gateway.tasks.log import TaskRow, UnknownTask
from gateway.tasks.pages import find_task
from policies.callers import Caller
from policies.delegation.rulings import Act

CouldAllow = Callable[[Caller, Act], bool]
AuthorizeOnTask = Callable[[Caller, Act, str], Awaitable[object]]
SEE_TASK, LIST_TASKS = replace(READ_AUDIT, verb="see-task"), replace(READ_AUDIT, verb="list-tasks")


class Oversight:
    """Authorizes access to tasks of other people.

    `could_allow` records nothing. `authorize_on_task` records the decision about a task and raises CallRefused unless it is a Grant.
    """

    def __init__(self, database: Database, could_allow: CouldAllow, authorize_on_task: AuthorizeOnTask) -> None:
        self._database = database
        self._could_allow = could_allow
        self._authorize_on_task = authorize_on_task

    async def find_any_task(self, caller: Caller, task_id: str) -> TaskRow:
        """Returns any task of the caller's tenant. Raises UnknownTask, also when the caller may not read it."""
        return await self._authorize_access(caller, SEE_TASK, task_id)

    async def authorize_cancel(self, caller: Caller, task_id: str) -> TaskRow:
        """Returns any task of the caller's tenant, which an operator may cancel. Raises UnknownTask, also when the caller may not."""
        return await self._authorize_access(caller, CANCEL_TASK, task_id)

    async def _authorize_access(self, caller: Caller, act: Act, task_id: str) -> TaskRow:
        if not self._could_allow(caller, act):
            raise UnknownTask
        tenant = caller.principal.tenant
        row = await self._database.read(lambda connection: find_task(connection, tenant, task_id))
        if row.owner == owner_of_deleted(tenant):  # its deletion has begun, and is recorded
            raise UnknownTask
        await self._authorize_on_task(caller, act, row.id)
        return row

    async def check_may_list(self, caller: Caller) -> None:
        """Raises CallRefused when the caller may not list the tasks of other people."""
        await require_permission(caller, lambda who, act: self._authorize_on_task(who, act, ""), LIST_TASKS)
