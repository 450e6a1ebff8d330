"""Lists of tasks: pages of the tasks that a caller may see, last updated first.

Their SQL is text, because a page is asked for often, and SQLAlchemy takes longer to compose a query than SQLite to answer it.
"""

import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from msgspec import Raw
from sqlalchemy import Connection, select

from adapters.task import TERMINAL, TaskState, encode
from gateway.storage.database import Database
from gateway.storage.paging import format_place, parse_place
from gateway.storage.tables import UNUSUAL, tasks
from gateway.tasks.ended_tasks import PruningNotice
from gateway.tasks.events.encoded_tasks import EncodedForm, EncodedTasks
from gateway.tasks.log import TaskEvent, TaskRow, UnknownTask, task_from_events
from policies.callers import Caller
from policies.delegation.permissions import Permissions

SLOW_SECONDS: Final = 0.005  # a list that takes longer is long: as many tasks were looked at, even if few belong to it
LISTS_MAX: Final = 1_000  # long lists whose numbers are remembered
SETTLED_US: Final = 60_000_000  # after which every process sees a change of a task
COUNT_LIFETIME_US: Final = SETTLED_US + 300_000_000  # for which a number is used: all that came since are looked at for each total
BEFORE_ANY_ID = "0"  # ids of tasks begin with a letter
_ROW: Final = ", ".join(TaskRow.__struct_fields__)
_EVENT: Final = "task_id, seq, at, kind, body, append, last_chunk, replied, metadata"
_new_row: Callable[..., TaskRow] = TaskRow
_STATE: Final = TaskRow.__struct_fields__.index("state")


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


@dataclass(frozen=True, slots=True)
class _Matches:
    """The tasks of a list: the conditions of SQL with `?` marks, their values, and the index that leaves the fewest tasks to look at.

    `have_ended` says that all are in one final state, so that each came to the list with its last update. To other lists it came with its
    creation.
    """

    where: str
    values: tuple[Any, ...]
    index: str
    have_ended: bool = False

    def after(self, cursor: str) -> "_Matches":
        """Returns the tasks that come after a cursor. Raises BadCursor."""
        if not cursor:
            return self
        updated, task_id = parse_place(cursor)
        where = f"{self.where} AND (updated < ? OR (updated = ? AND id < ?))"
        return dataclasses.replace(self, where=where, values=(*self.values, updated, updated, task_id))

    def came_since(self, moment: int) -> "_Matches":
        """Returns the tasks that came to the list at `moment` or after it, by the clock of any process. `updated` is in the index."""
        if self.have_ended:
            return dataclasses.replace(self, where=f"{self.where} AND updated >= ?", values=(*self.values, moment))
        where = f"{self.where} AND updated >= ? AND created >= ?"
        return dataclasses.replace(self, where=where, values=(*self.values, moment - SETTLED_US, moment))

    def count(self, is_sqlite: bool) -> tuple[str, tuple[Any, ...]]:
        """Returns the query of their number, and its values."""
        return self.select("count(*)", is_sqlite), self.values

    def select(self, columns: str, is_sqlite: bool) -> str:
        """Returns the query. PostgreSQL chooses the index by its figures."""
        return f"SELECT {columns} FROM tasks {f'INDEXED BY {self.index} ' if is_sqlite else ''}WHERE {self.where}"  # noqa: S608 (our own text)


class _OldTasks(NamedTuple):
    """How many tasks had come to a list before a moment. The number stays until tasks are deleted."""

    total: int
    came_before: int  # microseconds since 1970


class TaskCounts:
    """Remembers how many old tasks long lists have, so that only the new ones are counted again. For one event loop.

    A task keeps its owner, agent and parent, and its state once it has ended. It is never created and never ends in the past by more
    than SETTLED_US: the clocks of processes differ by less, and commits take less. An ending that is written later than it came gets
    the time of its writing. `now` returns microseconds since 1970.
    """

    def __init__(self, pruning: PruningNotice, now: Callable[[], int]) -> None:
        pruning.subscribe(self._forget_all)
        self._now = now
        self._known: OrderedDict[tuple[str, tuple[Any, ...]], _OldTasks | None] = OrderedDict()  # None: a long list, not counted yet
        self._generation = 0  # how often all numbers were forgotten

    async def read(self, database: Database, matches: _Matches) -> int | None:
        """Returns the number of tasks of a list that is known to be long; None for others, which are counted as a whole."""
        key, generation = (matches.where, matches.values), self._generation
        if key not in self._known or not database.is_fresh():
            return None
        known = self._known[key]
        if known is not None and known.came_before > self._now() - COUNT_LIFETIME_US:
            new = await database.query(*matches.came_since(known.came_before).count(database.is_sqlite), _number_of)
            return known.total + new
        since = self._now() - SETTLED_US
        new_ones = matches.came_since(since)
        (everything, values), (new_query, new_values) = matches.count(database.is_sqlite), new_ones.count(database.is_sqlite)
        statement = f"SELECT ({everything}), ({new_query})"
        total, new = await database.query(statement, (*values, *new_values), lambda rows: rows[0])
        if generation == self._generation and key in self._known:  # else tasks may have been deleted, or the list is no longer remembered
            self._known[key] = _OldTasks(total - new, since)
        return int(total)

    def note_seconds(self, matches: _Matches, seconds: float) -> None:
        """Has a long list counted by `read` from the next time on. `seconds`: what its page took with its total."""
        key = (matches.where, matches.values)
        if seconds >= SLOW_SECONDS and key not in self._known:
            self._known[key] = None
            if len(self._known) > LISTS_MAX:
                self._known.popitem(last=False)

    def _forget_all(self) -> None:
        self._known.clear()
        self._generation += 1


class TaskPages:
    """Reads pages with their total and their events, for listings of whole tasks. Without `counts`, each total is counted anew."""

    def __init__(self, database: Database, counts: TaskCounts | None = None) -> None:
        self._database = database
        self._counts = counts
        self._encoded = EncodedTasks()

    async def read_page_and_total(self, caller: Caller, filters: TaskFilter) -> tuple[list[TaskRow], str | None, int]:
        """Returns a page, the cursor of the next, and the number of matching tasks. Raises BadCursor."""
        is_sqlite, matches = self._database.is_sqlite, _matching_tasks(caller, filters)
        counts = self._counts if _has_stable_members(filters) else None
        known = await counts.read(self._database, matches) if counts is not None else None
        (count, values), page = matches.count(is_sqlite) if known is None else ("0", ()), matches.after(filters.cursor)
        if known == 0:  # the query of the page would look through all tasks of the index, since no row fills it
            return [], None, 0
        statement = f"{page.select(f'{_ROW}, ({count})', is_sqlite)} {_page_order(filters)}"
        began = time.perf_counter()
        found = await self._database.query(statement, (*values, *page.values), list)
        if known is not None:
            return *_page_of(found, caller, filters), known
        if found or not filters.cursor:
            if counts is not None:
                counts.note_seconds(matches, time.perf_counter() - began)
            return *_page_of(found, caller, filters), found[0][-1] if found else 0
        return [], None, await self._database.query(count, matches.values, _number_of)

    async def read_events(self, rows: Sequence[TaskRow], kinds: Sequence[str]) -> Mapping[str, Sequence[TaskEvent]]:
        """Returns the events of these kinds by task, in their order."""
        if not rows:
            return {}
        match = f"tenant = ? AND task_id IN ({_marks(rows)}) AND kind IN ({_marks(kinds)})"
        statement = f"SELECT {_EVENT} FROM task_events WHERE {match} ORDER BY task_id, seq"  # noqa: S608 (our own text)
        found = await self._database.query(statement, (rows[0].tenant, *(row.id for row in rows), *kinds), list)
        by_task: dict[str, list[TaskEvent]] = {}
        for task_id, seq, at, kind, body, append, last_chunk, replied, metadata in found:
            event = TaskEvent(seq, at, kind, body, bool(append), bool(last_chunk), bool(replied), metadata)
            by_task.setdefault(task_id, []).append(event)
        return by_task

    async def read_encoded(self, rows: Sequence[TaskRow], history_length: int, has_artifacts: bool) -> tuple[Raw, ...]:
        """Returns the tasks of these rows as A2A 1.0 JSON. The events are read of those that were not encoded before."""
        forms = [EncodedForm(row.tenant, row.id, row.last_seq, history_length, has_artifacts) for row in rows]
        encoded = [self._encoded.find(form) for form in forms]
        kinds = ("status", *(("message",) if history_length else ()), *(("artifact",) if has_artifacts else ()))
        events = await self.read_events([row for row, known in zip(rows, encoded, strict=True) if known is None], kinds)
        return tuple(
            self._encoded.keep(form, encode(task_from_events(row, _events_of(row, events), history_length))) if known is None else known
            for row, form, known in zip(rows, forms, encoded, strict=True)
        )


def _events_of(row: TaskRow, events: Mapping[str, Sequence[TaskEvent]]) -> list[TaskEvent]:
    """Returns the events that the row tells of. Those that were appended after it was read belong to the next list."""
    return [event for event in events.get(row.id, ()) if event.seq <= row.last_seq]


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values))


def _matching_tasks(caller: Caller, filters: TaskFilter) -> _Matches:
    """Returns all matching tasks, without the cursor."""
    conditions: list[str] = ["tenant = ?"]
    values: list[Any] = [caller.principal.tenant]
    if not filters.includes_whole_tenant:
        _restrict_to_visible(conditions, values, caller)
    for column, value in (("agent", filters.agent), ("state", filters.state), ("context_id", filters.context_id)):
        if value:
            conditions.append(f"{column} = ?")
            values.append(value)
    if _is_unusual(filters.state):
        conditions.append(UNUSUAL)
    if filters.updated_since:
        conditions.append("updated >= ?")
        values.append(filters.updated_since)
    return _Matches(" AND ".join(conditions), tuple(values), _index_for(filters), have_ended=_is_final(filters.state))


def _has_stable_members(filters: TaskFilter) -> bool:
    """Returns whether a task that once belonged to the list always does, and new ones are found by an index."""
    return not (filters.context_id or filters.updated_since) and (not filters.state or _is_final(filters.state))


def _is_final(state: str) -> bool:
    return state in TERMINAL  # members of TaskState are equal to their values


def _number_of(rows: Sequence[Sequence[Any]]) -> int:
    return int(rows[0][0])


def _is_unusual(state: str) -> bool:
    return state not in ("", TaskState.COMPLETED.value)


def _index_for(filters: TaskFilter) -> str:
    """Returns the index that leaves the fewest tasks to look at, in the order of pages where it has that."""
    if filters.context_id:
        return "tasks_context"
    if _is_unusual(filters.state):
        return "tasks_state" if filters.includes_whole_tenant else "tasks_owner_state"
    return "tasks_updated" if filters.includes_whole_tenant else "tasks_owner"


def _restrict_to_visible(conditions: list[str], values: list[Any], caller: Caller) -> None:
    """Adds the conditions of what the caller may see without the permission to see the whole tenant."""
    conditions.append("owner = ?")
    values.append(caller.principal.owner_key)
    if caller.delegation.path:
        conditions.append("parent_id = ?")
        values.append(caller.delegation.task_id)
    held = caller.delegation.effective_permissions()
    if not held.covers("agent:*"):
        agents = _agents_within(held)
        conditions.append(f"agent IN ({_marks(agents)})" if agents else "1 = 0")
        values += agents


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
    anyone = dataclasses.replace(filters, agent="", state="")
    matches = _matching_tasks(caller, anyone).after(filters.cursor)
    rest = f"ORDER BY updated DESC LIMIT 1 OFFSET {filters.looked_at_max - 1:d}"
    found = _run(connection, f"{matches.select('updated', _is_sqlite(connection))} {rest}", matches.values)
    return found[0][0] if found else None


def read_page(connection: Connection, caller: Caller, filters: TaskFilter) -> tuple[list[TaskRow], str | None]:
    """Returns the tasks of a page and the cursor of the next. Raises BadCursor."""
    matches, floor = _matching_tasks(caller, filters).after(filters.cursor), _last_looked_at(connection, caller, filters)
    if floor is not None:
        matches = dataclasses.replace(matches, where=f"{matches.where} AND updated >= ?", values=(*matches.values, floor))
    found = _run(connection, f"{matches.select(f'{_ROW}, 0', _is_sqlite(connection))} {_page_order(filters)}", matches.values)
    rows, more = _page_of(found, caller, filters)
    return rows, more if more or floor is None else format_place(floor, BEFORE_ANY_ID)


def _page_order(filters: TaskFilter) -> str:
    return f"ORDER BY updated DESC, id DESC LIMIT {filters.limit + 1:d}"


def _page_of(found: Sequence[Sequence[Any]], caller: Caller, filters: TaskFilter) -> tuple[list[TaskRow], str | None]:
    """Returns the tasks of a page and the cursor of the next, from rows with one column more than a TaskRow has members."""
    rows = [task_row_of(row[:-1]) for row in found[: filters.limit]]
    more = format_place(rows[-1].updated, rows[-1].id) if len(found) > filters.limit else None
    return [row for row in rows if filters.includes_whole_tenant or can_see(caller, row)], more


def task_row_of(values: Sequence[Any]) -> TaskRow:
    """Returns the row with these values, in the order of the members of TaskRow."""
    return _new_row(*values[:_STATE], TaskState(values[_STATE]), *values[_STATE + 1 :])


def _run(connection: Connection, statement: str, values: tuple[Any, ...]) -> Sequence[Sequence[Any]]:
    return connection.exec_driver_sql(statement if _is_sqlite(connection) else statement.replace("?", "%s"), values).all()


def _is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"
