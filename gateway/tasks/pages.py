"""Lists of tasks: pages of the tasks that a caller may see, last updated first."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, func, or_, select, text

from adapters.task import TaskState
from gateway.storage.database import Database
from gateway.storage.paging import format_place, parse_place, with_index
from gateway.storage.tables import UNUSUAL, task_events, tasks
from gateway.tasks.events.entries import event_from_row
from gateway.tasks.log import TaskEvent, TaskRow, UnknownTask
from policies.callers import Caller
from policies.delegation.permissions import Permissions

BEFORE_ANY_ID = "0"  # ids of tasks begin with a letter


@dataclass(frozen=True, slots=True)
class TaskFilter:
    """Selects tasks: empty members match all. `cursor` is the `next` of the page before.

    `includes_whole_tenant` selects the tasks of all users of the tenant.
    """

    agent: str = ""
    state: str = ""
    context_id: str = ""
    cursor: str = ""
    limit: int = 50
    updated_since: int = 0  # microseconds since 1970; tasks updated at or after it
    includes_whole_tenant: bool = False
    looked_at_max: int = 0  # tasks that one page looks through, so that a rare agent has pages with fewer tasks than `limit`; 0: all


def can_see(caller: Caller, row: TaskRow) -> bool:
    """Returns whether the owner's token reaches this task.

    Its scope must cover the agent, and an agent sees only tasks that its own task caused.
    """
    delegation = caller.delegation
    caused = not delegation.path or row.parent_id == delegation.task_id
    return caused and delegation.effective_permissions().covers(f"agent:{row.agent}")


class TaskPages:
    """Reads pages with their total and their events, for listings of whole tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read_page_and_total(self, caller: Caller, filters: TaskFilter) -> tuple[list[TaskRow], str | None, int]:
        """Returns a page, the cursor of the next, and the number of matching tasks. Raises BadCursor."""

        def work(connection: Connection) -> tuple[list[TaskRow], str | None, int]:
            total = connection.execute(select(func.count()).select_from(_matching_query(caller, filters).subquery())).scalar_one()
            return *read_page(connection, caller, filters), total

        return await self._database.read(work)

    async def read_events(self, rows: Sequence[TaskRow], kinds: Sequence[str]) -> Mapping[str, Sequence[TaskEvent]]:
        """Returns the events of these kinds by task, in their order."""
        if not rows:
            return {}
        log = task_events.c
        match = (log.tenant == rows[0].tenant) & log.task_id.in_([row.id for row in rows]) & log.kind.in_(kinds)
        query = select(task_events).where(match).order_by(log.task_id, log.seq)
        found = await self._database.read(lambda connection: connection.execute(query).all())
        by_task: dict[str, list[TaskEvent]] = {}
        for row in found:
            by_task.setdefault(row.task_id, []).append(event_from_row(row))
        return by_task


def _matching_query(caller: Caller, filters: TaskFilter) -> Select[Any]:
    """Returns the query for all matching tasks, without the cursor."""
    query = select(tasks).where(tasks.c.tenant == caller.principal.tenant)
    if not filters.includes_whole_tenant:
        query = _restrict_to_visible(query, caller)
    for column, value in ((tasks.c.agent, filters.agent), (tasks.c.state, filters.state), (tasks.c.context_id, filters.context_id)):
        query = query.where(column == value) if value else query
    if _is_unusual(filters.state):
        query = query.where(text(UNUSUAL))
    query = query.where(tasks.c.updated >= filters.updated_since) if filters.updated_since else query
    return with_index(query, tasks, _index_for(filters))


def _is_unusual(state: str) -> bool:
    return state not in ("", TaskState.COMPLETED.value)


def _index_for(filters: TaskFilter) -> str:
    """Returns the index that leaves the fewest tasks to look at, in the order of pages where it has that."""
    if filters.context_id:
        return "tasks_context"
    if _is_unusual(filters.state):
        return "tasks_state"
    return "tasks_updated" if filters.includes_whole_tenant else "tasks_owner"


def _restrict_to_visible(query: Select[Any], caller: Caller) -> Select[Any]:
    """Restricts the query to what the caller may see without the permission to see the whole tenant."""
    query = query.where(tasks.c.owner == caller.principal.owner_key)
    if caller.delegation.path:
        query = query.where(tasks.c.parent_id == caller.delegation.task_id)
    held = caller.delegation.effective_permissions()
    return query if held.covers("agent:*") else query.where(tasks.c.agent.in_(_agents_within(held)))


def find_task(connection: Connection, tenant: str, task_id: str) -> TaskRow:
    """Returns a task of any owner of the tenant. Raises UnknownTask."""
    found = connection.execute(select(tasks).where((tasks.c.tenant == tenant) & (tasks.c.id == task_id))).first()
    if found is None:
        raise UnknownTask
    return TaskRow(**{**found._mapping, "state": TaskState(found.state)})


def _agents_within(held: Permissions) -> list[str]:
    """Returns the agents that a narrowed token or a ceiling still covers, so that pages and totals count only visible tasks."""
    names = (pattern.removeprefix("agent:") for pattern in held.patterns if pattern.startswith("agent:"))
    return sorted(name for name in names if held.covers(f"agent:{name}"))


def _last_looked_at(connection: Connection, caller: Caller, filters: TaskFilter) -> int | None:
    """Returns the moment of the last task that a page looks at, whatever its agent; None where it looks at all that are left."""
    if not filters.looked_at_max or not filters.agent or filters.context_id or _is_unusual(filters.state):
        return None  # the index leaves few tasks to look at
    whoever = dataclasses.replace(filters, agent="", state="")
    query = _after(_matching_query(caller, whoever), filters.cursor).with_only_columns(tasks.c.updated)
    return connection.execute(query.order_by(tasks.c.updated.desc()).offset(filters.looked_at_max - 1).limit(1)).scalar()


def _after(query: Select[Any], cursor: str) -> Select[Any]:
    """Returns the query for what comes after a cursor. Raises BadCursor."""
    if not cursor:
        return query
    updated, task_id = parse_place(cursor)
    return query.where(or_(tasks.c.updated < updated, and_(tasks.c.updated == updated, tasks.c.id < task_id)))


def read_page(connection: Connection, caller: Caller, filters: TaskFilter) -> tuple[list[TaskRow], str | None]:
    """Returns the tasks of a page and the cursor of the next. Raises BadCursor."""
    query, floor = _after(_matching_query(caller, filters), filters.cursor), _last_looked_at(connection, caller, filters)
    if floor is not None:
        query = query.where(tasks.c.updated >= floor)
    found = connection.execute(query.order_by(tasks.c.updated.desc(), tasks.c.id.desc()).limit(filters.limit + 1)).all()
    rows = [TaskRow(**{**row._mapping, "state": TaskState(row.state)}) for row in found[: filters.limit]]
    more = None if floor is None else format_place(floor, BEFORE_ANY_ID)
    if len(found) > filters.limit:
        more = format_place(rows[-1].updated, rows[-1].id)
    return [row for row in rows if filters.includes_whole_tenant or can_see(caller, row)], more
