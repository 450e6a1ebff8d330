"""What was said in the tasks of one context, across agents, as their logs have it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from msgspec import UNSET, Struct
from sqlalchemy import Row, Select, and_, func, or_, select

from adapters.task import Artifact, Message, Role, TaskState
from gateway.storage.database import Database
from gateway.storage.paging import format_place, parse_place
from gateway.storage.tables import tasks
from gateway.tasks.events.entries import TaskEvent
from gateway.tasks.log import TaskLog, TaskRecord, UnknownTask
from gateway.tasks.turns.transitions import ERROR_METADATA
from policies.tables import transaction_history

PERSON_SPEAKER: Final = "person"
TEXT_SHOWN_MAX: Final = 8192  # characters of one text
TEXTS_SHOWN_MAX: Final = 100  # of one task, the last ones


class SpokenText(Struct, frozen=True):
    """One text of a task. `speaker` is `person` or the name of an agent."""

    speaker: str
    text: str


class SpokenTask(Struct, frozen=True):
    """What was said in one task. `created` is in microseconds since 1970."""

    task_id: str
    agent: str
    created: int
    sensitivity: int  # of what the task's transaction has read
    texts: tuple[SpokenText, ...]


class ContextReader:
    """Reads the tasks of a context from their logs."""

    def __init__(self, database: Database, log: TaskLog) -> None:
        self._database = database
        self._log = log

    async def context_of_task(self, tenant: str, owner: str, task_id: str) -> tuple[str, str] | None:
        """The context of a task and the id of its calling task, empty for the person's own; None without such a task."""
        try:
            row = await self._log.find(tenant, owner, task_id)
        except UnknownTask:
            return None
        return row.context_id, row.parent_id

    async def read(
        self,
        tenant: str,
        owner: str,
        context_id: str,
        *,
        parent_id: str | None,
        may_see: Callable[[str], bool],
        clearance: int,
        cursor: str = "",
        limit: int = 10,
    ) -> tuple[list[SpokenTask], str | None]:
        """A page of tasks, the newest first, and the cursor of the next page. `parent_id` narrows them to those of one calling task.

        Leaves out tasks of agents that the reader may not see, and those that have read more than the clearance. Raises BadCursor.
        """
        query = _query_of(tenant, owner, context_id, parent_id)
        if cursor:
            created, task_id = parse_place(cursor)
            query = query.where(or_(tasks.c.created < created, and_(tasks.c.created == created, tasks.c.id < task_id)))
        query = query.order_by(tasks.c.created.desc(), tasks.c.id.desc()).limit(limit + 1)
        rows = await self._database.read(lambda connection: connection.execute(query).all())
        visible = [row for row in rows[:limit] if may_see(row.agent) and row.taint <= clearance]
        found = [await self._read_task(tenant, owner, row) for row in visible]
        following = format_place(rows[limit - 1].created, rows[limit - 1].id) if len(rows) > limit else None
        return [each for each in found if each is not None], following

    async def _read_task(self, tenant: str, owner: str, row: Row[Any]) -> SpokenTask | None:
        try:
            record = await self._log.read_record(tenant, owner, row.id)
        except UnknownTask:  # deleted since its row was read
            return None
        asker = row.caller or PERSON_SPEAKER
        texts = [SpokenText(asker if role is Role.USER else row.agent, text[:TEXT_SHOWN_MAX]) for role, text in _all_texts(record)]
        return SpokenTask(row.id, row.agent, row.created, row.taint, tuple(texts[-TEXTS_SHOWN_MAX:]))


def _query_of(tenant: str, owner: str, context_id: str, parent_id: str | None) -> "Select[Any]":
    """The tasks of a context, each with the agent that called, and with the sensitivity of what its transaction has read."""
    history, parent = transaction_history.c, tasks.alias("parent")
    taint = func.coalesce(history.taint, 0).label("taint")
    query = select(tasks.c.id, tasks.c.agent, tasks.c.created, parent.c.agent.label("caller"), taint)
    query = query.outerjoin_from(tasks, transaction_history, (history.tenant == tasks.c.tenant) & (history.txn == tasks.c.txn))
    query = query.outerjoin(parent, (parent.c.tenant == tasks.c.tenant) & (parent.c.id == tasks.c.parent_id))
    query = query.where(tasks.c.tenant == tenant, tasks.c.owner == owner, tasks.c.context_id == context_id)
    return query if parent_id is None else query.where(tasks.c.parent_id == parent_id)


def _all_texts(record: TaskRecord) -> Iterator[tuple[Role, str]]:
    """The texts of a task's messages, and after them those of its artifacts."""
    yield from spoken_texts(record.events)
    for artifact in record.to_task().artifacts or ():
        if text := _text_of(artifact):
            yield Role.AGENT, text


def spoken_texts(events: Iterable[TaskEvent]) -> Iterator[tuple[Role, str]]:
    """Yields the texts of a task's messages. Leaves out data, files, artifacts and the gateway's own messages."""
    for event in events:
        message: Any = None
        if event.kind == "message":
            message = event.message
        elif event.kind == "status":
            status = event.status
            message = None if status.state is TaskState.AUTH_REQUIRED else status.message
        if not isinstance(message, Message) or (message.metadata is not UNSET and ERROR_METADATA in message.metadata):
            continue
        if text := _text_of(message):
            yield message.role, text


def _text_of(content: Message | Artifact) -> str:
    return "\n".join(part.text for part in content.parts if isinstance(part.text, str))
