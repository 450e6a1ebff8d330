"""notifications/tasks on `subscriptions/listen` (SEP-2663): each change of an agent's task, whole, to whoever may see it then."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from adapters.contract import UpstreamFault
from adapters.mcp_client.wire.messages import INVALID_PARAMS, McpRefused
from adapters.upstream.targets import EgressRefused
from gateway.calls.authorizer import Refused
from gateway.ingress.http.errors import TooManyWaiting
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.tasks.methods import NOT_DECLARED, Tasks
from gateway.ingress.mcp_server.tasks.store import ServerTask
from gateway.ingress.mcp_server.tasks.wire import ENDED, check_declared
from gateway.storage.database import NotKept, NotRead
from gateway.tasks.log import TaskLog, TaskRow, UnknownTask

IDS_MAX = 100
CHANGED = "notifications/tasks"
ASK_MIN, ASK_MAX = 1.0, 30.0  # seconds between two questions to a server
log = structlog.get_logger()
Followed = TaskRow | ServerTask
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


def _pause(shown: Mapping[str, Any]) -> float:
    """Seconds, as the server wishes within bounds."""
    wished = shown.get("pollIntervalMs")
    return max(ASK_MIN, min(ASK_MAX, wished / 1000)) if isinstance(wished, int | float) else ASK_MIN


class TaskFeed:
    """Of an agent's task every change is told; a server is asked for its own again and again, the less often the longer nothing happens."""

    def __init__(self, tasks: Tasks, log: TaskLog) -> None:
        self._tasks = tasks
        self._log = log

    async def granted(self, asked: Asked, ids: tuple[str, ...]) -> dict[str, Followed]:
        """Those of them that the caller will be told of."""
        rows = {task_id: await self._tasks.followed(asked, task_id) for task_id in ids}
        return {task_id: row for task_id, row in rows.items() if row is not None}

    async def run(self, asked: Asked, rows: Mapping[str, Followed], say: Say) -> None:
        """Until all of them have ended. What a task is at first is told too, so that no change is missed in between."""
        if rows:
            follow = (
                self._ask_again(asked, row, say) if isinstance(row, ServerTask) else self._follow(asked, row, say) for row in rows.values()
            )
            await asyncio.gather(*follow)

    async def _follow(self, asked: Asked, row: TaskRow, say: Say) -> None:
        try:
            told = await self._tell(asked, row, say, None)
            async for events in self._log.follow(row, row.last_seq, past_waits=True):
                if any(event.kind == "status" for event in events):
                    told = await self._tell(asked, row, say, told)
        except (BadEnvelope, UnknownTask, Refused, NotRead) as error:
            log.info("task_not_followed", task_id=row.id, error=type(error).__name__)

    async def _ask_again(self, asked: Asked, task: ServerTask, say: Say) -> None:
        told, pause = None, 0.0
        try:
            while True:
                shown = await self._tell(asked, task, say, told)
                if shown["status"] in ENDED:
                    return
                pause = _pause(shown) if shown != told else min(ASK_MAX, 1.5 * pause)
                told = shown
                await asyncio.sleep(pause)
        except (BadEnvelope, UnknownTask, UpstreamFault, McpRefused, EgressRefused, TooManyWaiting, Refused, NotKept, NotRead) as error:
            log.info("task_not_followed", task_id=task.id, error=type(error).__name__)

    async def _tell(self, asked: Asked, row: Followed, say: Say, told: Any) -> Any:
        shown = await self._tasks.shown(asked, row.id)
        if shown != told:
            say(CHANGED, shown)
        return shown
