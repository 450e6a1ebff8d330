"""notifications/tasks on `subscriptions/listen` (SEP-2663): each change of a task as a DetailedTask, for callers that may see it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from adapters.contract import UpstreamFault
from adapters.mcp_client.wire.messages import INVALID_PARAMS, McpRefused
from adapters.upstream.targets import EgressRefused
from gateway.calls.authorizer import CallRefused
from gateway.ingress.http.errors import TooManyWaiting
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.tasks.methods import NOT_DECLARED_TEXT, TaskMethods
from gateway.ingress.mcp_server.tasks.store import ServerTask
from gateway.ingress.mcp_server.tasks.wire import ENDED_STATUSES, check_declares_tasks
from gateway.storage.database import ReadFailed, WriteFailed
from gateway.tasks.log import TaskLog, TaskRow, UnknownTask

IDS_MAX = 100
TASK_CHANGED = "notifications/tasks"
POLL_MIN_SECONDS, POLL_MAX_SECONDS = 1.0, 30.0  # between two polls of a server
log = structlog.get_logger()
FollowedTask = TaskRow | ServerTask
Notify = Callable[[str, Mapping[str, Any]], object]


def parse_task_ids(message: ClientMessage) -> tuple[str, ...]:
    """Returns the task ids of a listen request. Raises BadEnvelope, with -32021 where the client does not declare tasks."""
    wanted = message.params_object().get("notifications")
    ids = wanted.get("taskIds", []) if isinstance(wanted, dict) else []
    if not isinstance(ids, list) or len(ids) > IDS_MAX or not all(isinstance(each, str) for each in ids):
        raise BadEnvelope(INVALID_PARAMS, f"params.notifications.taskIds must be a list of at most {IDS_MAX} strings")
    if ids:
        check_declares_tasks(message.capabilities, NOT_DECLARED_TEXT)
    return tuple(dict.fromkeys(ids))


def _poll_seconds(task_document: Mapping[str, Any]) -> float:
    """Returns the poll interval that the server wishes, within bounds."""
    wished = task_document.get("pollIntervalMs")
    return max(POLL_MIN_SECONDS, min(POLL_MAX_SECONDS, wished / 1000)) if isinstance(wished, int | float) else POLL_MIN_SECONDS


class TaskFeed:
    """Follows tasks. Changes of agents' tasks come from the log; servers are polled, more slowly while nothing changes."""

    def __init__(self, tasks: TaskMethods, log: TaskLog) -> None:
        self._tasks = tasks
        self._log = log

    async def find_followed(self, message: ClientMessage, ids: tuple[str, ...]) -> dict[str, FollowedTask]:
        """Returns the tasks of these ids that the caller may follow."""
        rows = {task_id: await self._tasks.find_followed(message, task_id) for task_id in ids}
        return {task_id: row for task_id, row in rows.items() if row is not None}

    async def run(self, message: ClientMessage, rows: Mapping[str, FollowedTask], notify: Notify) -> None:
        """Notifies of changes until all tasks have ended. The first state is sent too, so that no change is missed."""
        if rows:
            follow = (
                self._poll_server_task(message, row, notify)
                if isinstance(row, ServerTask)
                else self._follow_agent_task(message, row, notify)
                for row in rows.values()
            )
            await asyncio.gather(*follow)

    async def _follow_agent_task(self, message: ClientMessage, row: TaskRow, notify: Notify) -> None:
        try:
            notified = await self._notify_if_changed(message, row, notify, None)
            async for events in self._log.follow(row, row.last_seq, until_end=True):
                if any(event.kind == "status" for event in events):
                    notified = await self._notify_if_changed(message, row, notify, notified)
        except (BadEnvelope, UnknownTask, CallRefused, ReadFailed) as error:
            log.info("task_follow_failed", task_id=row.id, error=type(error).__name__)

    async def _poll_server_task(self, message: ClientMessage, task: ServerTask, notify: Notify) -> None:
        notified, pause = None, 0.0
        try:
            while True:
                shown = await self._notify_if_changed(message, task, notify, notified)
                if shown["status"] in ENDED_STATUSES:
                    return
                pause = _poll_seconds(shown) if shown != notified else min(POLL_MAX_SECONDS, 1.5 * pause)
                notified = shown
                await asyncio.sleep(pause)
        except (
            BadEnvelope,
            UnknownTask,
            UpstreamFault,
            McpRefused,
            EgressRefused,
            TooManyWaiting,
            CallRefused,
            WriteFailed,
            ReadFailed,
        ) as error:
            log.info("task_follow_failed", task_id=task.id, error=type(error).__name__)

    async def _notify_if_changed(self, message: ClientMessage, row: FollowedTask, notify: Notify, previous: Any) -> Any:
        shown = await self._tasks.detailed_task(message, row.id)
        if shown != previous:
            notify(TASK_CHANGED, shown)
        return shown
