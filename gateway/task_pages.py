"""Lists of tasks: a page of what one caller may see, the last moved first."""

from dataclasses import dataclass

from sqlalchemy import Connection, and_, or_, select

from adapters.task import TaskState
from gateway.decisions import BadCursor
from gateway.tables import tasks
from gateway.tasks import TaskRow
from policies.authority import Caller


@dataclass(frozen=True, slots=True)
class Page:
    """What is asked for: empty members match all. `cursor` is the `next` of the page before."""

    agent: str = ""
    state: str = ""
    context_id: str = ""
    cursor: str = ""
    limit: int = 50


def sees(caller: Caller, row: TaskRow) -> bool:
    """Whether an owner's token reaches this task: its scope covers the agent, and an agent sees only what its own task caused."""
    delegation = caller.delegation
    caused = not delegation.path or row.parent_id == delegation.task_id
    return caused and delegation.held().covers(f"agent:{row.agent}")


def read_page(connection: Connection, caller: Caller, page: Page) -> tuple[list[TaskRow], str | None]:
    """The tasks of a page, which may be fewer than its limit, and the cursor of the next. Raises BadCursor."""
    query = select(tasks).where((tasks.c.tenant == caller.principal.tenant) & (tasks.c.owner == caller.principal.owner))
    if caller.delegation.path:
        query = query.where(tasks.c.parent_id == caller.delegation.task_id)
    for column, value in ((tasks.c.agent, page.agent), (tasks.c.state, page.state), (tasks.c.context_id, page.context_id)):
        query = query.where(column == value) if value else query
    if page.cursor:
        updated, task_id = _position(page.cursor)
        query = query.where(or_(tasks.c.updated < updated, and_(tasks.c.updated == updated, tasks.c.id < task_id)))
    found = connection.execute(query.order_by(tasks.c.updated.desc(), tasks.c.id.desc()).limit(page.limit + 1)).all()
    rows = [TaskRow(**{**row._mapping, "state": TaskState(row.state)}) for row in found[: page.limit]]
    more = f"{rows[-1].updated}.{rows[-1].id}" if len(found) > page.limit else None
    return [row for row in rows if sees(caller, row)], more


def _position(cursor: str) -> tuple[int, str]:
    updated, _, task_id = cursor.partition(".")
    if not (task_id and updated.isascii() and updated.isdigit() and len(updated) < 19):
        raise BadCursor
    return int(updated), task_id
