"""notifications/tasks on `subscriptions/listen` (SEP-2663): each change of an agent's task, whole, to whoever may see it then."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from adapters.mcp_wire import INVALID_PARAMS
from gateway.database import NotRead
from gateway.ledger import Refused
from gateway.mcp_server.asked import Asked
from gateway.mcp_server.modern import BadEnvelope
from gateway.mcp_server.task_words import check_declared
from gateway.mcp_server.tasks import NOT_DECLARED, Tasks
from gateway.tasks import TaskLog, TaskRow, UnknownTask

IDS_MAX = 100
CHANGED = "notifications/tasks"
log = structlog.get_logger()
Say = Callable[[str, Mapping[str, Any]], object]


def task_ids(asked: Asked) -> tuple[str, ...]:
    """Those that a listener names. Raises BadEnvelope, -32021 where the client does not take tasks."""
    wanted = asked.object().get("notifications")
    ids = wanted.get("taskIds", []) if isinstance(wanted, dict) else []
    if not isinstance(ids, list) or len(ids) > IDS_MAX or not all(isinstance(each, str) for each in ids):
        raise BadEnvelope(INVALID_PARAMS, f"params.notifications.taskIds must be a list of at most {IDS_MAX} strings")
    if ids:
        check_declared(asked.capabilities, NOT_DECLARED)
    return tuple(dict.fromkeys(ids))


class TaskFeed:
    """Tasks of servers are not told of: no server of ours is listened to on their behalf, and their callers go on asking."""

    def __init__(self, tasks: Tasks, log: TaskLog) -> None:
        self._tasks = tasks
        self._log = log

    async def granted(self, asked: Asked, ids: tuple[str, ...]) -> dict[str, TaskRow]:
        """Those of them that the caller will be told of."""
        rows = {task_id: await self._tasks.followed(asked, task_id) for task_id in ids}
        return {task_id: row for task_id, row in rows.items() if row is not None}

    async def run(self, asked: Asked, rows: Mapping[str, TaskRow], say: Say) -> None:
        """Until all of them have ended. What a task is at first is told too, so that no change is missed in between."""
        if rows:
            await asyncio.gather(*(self._follow(asked, row, say) for row in rows.values()))

    async def _follow(self, asked: Asked, row: TaskRow, say: Say) -> None:
        try:
            told = await self._tell(asked, row, say, None)
            async for events in self._log.follow(row, row.last_seq, past_waits=True):
                if any(event.kind == "status" for event in events):
                    told = await self._tell(asked, row, say, told)
        except (BadEnvelope, UnknownTask, Refused, NotRead) as error:
            log.info("task_not_followed", task_id=row.id, error=type(error).__name__)

    async def _tell(self, asked: Asked, row: TaskRow, say: Say, told: Any) -> Any:
        shown = await self._tasks.shown(asked, row.id)
        if shown != told:
            say(CHANGED, shown)
        return shown
