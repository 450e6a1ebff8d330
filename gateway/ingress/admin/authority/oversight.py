"""Access to all tasks of a tenant with audit:read. Each read of another person's task is recorded in the audit."""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from gateway.audit.decisions import READ_AUDIT
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
        if not self._could_allow(caller, SEE_TASK):
            raise UnknownTask
        tenant = caller.principal.tenant
        row = await self._database.read(lambda connection: find_task(connection, tenant, task_id))
        await self._authorize_on_task(caller, SEE_TASK, row.id)
        return row

    async def check_may_list(self, caller: Caller) -> None:
        """Raises CallRefused when the caller may not list the tasks of other people."""
        await require_permission(caller, lambda who, act: self._authorize_on_task(who, act, ""), LIST_TASKS)
