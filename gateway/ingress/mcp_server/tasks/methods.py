"""The requests of the tasks extension (SEP-2663) and of tasks in 2025-11-25, for tasks of agents and of servers."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from adapters.mcp_client.wire.messages import INVALID_PARAMS, MISSING_CAPABILITY
from adapters.mcp_client.wire.peer import McpPeer, PeerRefused
from gateway.ingress.http.errors import UnknownMethod
from gateway.ingress.mcp_server.catalogue.visible import VisibleEntries
from gateway.ingress.mcp_server.protocol.client_wishes import missing_capabilities
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.tasks.agent_tasks import AgentTasks, related_task_meta, skill_of
from gateway.ingress.mcp_server.tasks.server_tasks import RelayedTasks
from gateway.ingress.mcp_server.tasks.store import ServerTask
from gateway.ingress.mcp_server.tasks.wire import (
    CANCEL_METHOD,
    ENDED_STATUSES,
    LEGACY_TASKS_VERSION,
    POLL_MS,
    RELATED_TASK_KEY,
    check_declares_tasks,
    detailed_task,
    legacy_task,
)
from gateway.storage.paging import BadCursor
from gateway.tasks.log import TaskLog, TaskRecord, TaskRow, UnknownTask
from gateway.tasks.pages import TaskFilter, TaskPages
from gateway.tasks.reader import TaskReader
from registry.cards.card import Family
from registry.names import FRONT_DOOR
from registry.store import UnknownName

RESULT_SECONDS = 600.0  # how long tasks/result waits
NOT_DECLARED_TEXT = "the client did not declare the tasks extension"
AGENT_TASK_PREFIX = "t_"
PAGE_SIZE = 50
encode = msgspec.json.Encoder().encode
ACK = encode({"resultType": "complete"})


class TaskSources(Struct, frozen=True):
    """The parts that tasks come from."""

    log: TaskLog
    pages: TaskPages
    agents: AgentTasks
    servers: RelayedTasks


class TaskMethods:
    """Answers requests about tasks. Each request checks whose task it is and what its caller may do now; foreign tasks are unknown."""

    def __init__(self, visible_entries: VisibleEntries, sources: TaskSources) -> None:
        self._visible_entries = visible_entries
        self._log = sources.log
        self._reader = TaskReader(sources.log)
        self._pages = sources.pages
        self._agents = sources.agents
        self._servers = sources.servers

    async def get(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Answers tasks/get of 2026-07-28."""
        check_declares_tasks(message.capabilities, NOT_DECLARED_TEXT)
        return encode({"resultType": "complete", **await self.detailed_task(message, message.string_param("taskId"))})

    async def update(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Answers tasks/update."""
        check_declares_tasks(message.capabilities, NOT_DECLARED_TEXT)
        responses = message.params_object().get("inputResponses")
        if not isinstance(responses, dict):
            raise BadEnvelope(INVALID_PARAMS, "params.inputResponses must be an object")
        found = await self._find(message, message.string_param("taskId"))
        if isinstance(found, ServerTask):
            await self._servers.update(message, found, responses)
        else:
            await self._agents.accept_answers(message, found, responses)
        return ACK

    async def cancel(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Answers tasks/cancel of 2026-07-28. The task is asked to end; tasks/get shows whether it has."""
        check_declares_tasks(message.capabilities, NOT_DECLARED_TEXT)
        await self._cancel(message, await self._find(message, message.string_param("taskId")))
        return ACK

    async def detailed_task(self, message: ClientMessage, task_id: str) -> dict[str, Any]:
        """Returns a DetailedTask. Raises BadEnvelope."""
        return await self._detailed_task(message, await self._find(message, task_id))

    async def find_followed(self, message: ClientMessage, task_id: str) -> TaskRow | ServerTask | None:
        """Returns an agent's task row, a server's task, or None for an unknown task."""
        try:
            found = await self._find(message, task_id)
        except BadEnvelope:
            return None
        return found if isinstance(found, ServerTask) else found.row

    async def get_legacy(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Answers tasks/get of 2025-11-25."""
        found = await self._find_legacy(message)
        if isinstance(found, ServerTask) and self._servers.are_both_legacy(message, found.server):
            return await self._servers.forward(message, found, peer)
        return encode(legacy_task(await self._detailed_task(message, found)))

    async def result_legacy(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Answers tasks/result: waits for the end, and asks the client the task's questions.

        Raises BadEnvelope with the error of the call.
        """
        found, task_id = await self._find_legacy(message), message.string_param("taskId")
        if isinstance(found, ServerTask) and self._servers.are_both_legacy(message, found.server):
            return await self._servers.forward(message, found, peer)
        try:
            async with asyncio.timeout(RESULT_SECONDS):
                shown = await self._wait_until_ended(message, task_id, peer)
        except TimeoutError:
            raise BadEnvelope(-32603, "the task has not ended yet; request its result again", status=200) from None
        if shown["status"] == "cancelled":
            raise BadEnvelope(-32603, "the task was cancelled", status=200)
        if shown["status"] == "failed":
            error = shown.get("error") or {}
            raise BadEnvelope(error.get("code", -32603), str(error.get("message", "the call failed")), status=200)
        result = {name: value for name, value in (shown.get("result") or {}).items() if name != "resultType"}
        return encode({**result, "_meta": {**(result.get("_meta") or {}), RELATED_TASK_KEY: {"taskId": task_id}}})

    async def cancel_legacy(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Answers tasks/cancel of 2025-11-25 with the task. Raises BadEnvelope for a task that has ended."""
        found = await self._find_legacy(message)
        if isinstance(found, ServerTask) and self._servers.are_both_legacy(message, found.server):
            return await self._servers.forward(message, found, peer)
        if (await self._detailed_task(message, found))["status"] in ENDED_STATUSES:
            raise BadEnvelope(INVALID_PARAMS, "the task has ended already", status=200)
        await self._cancel(message, found)
        return encode(legacy_task(await self.detailed_task(message, message.string_param("taskId"))))

    async def list_legacy(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Answers tasks/list with tasks of agents, the most recently changed first."""
        _check_version(message)
        cursor = message.params_object().get("cursor", "")
        try:
            rows, more, _ = await self._pages.read_page_and_total(
                message.caller, TaskFilter(cursor=cursor if isinstance(cursor, str) else "?", limit=PAGE_SIZE)
            )
        except BadCursor:
            raise BadEnvelope(INVALID_PARAMS, "params.cursor is not valid for this list; start again without one") from None
        events = await self._pages.read_events(rows, ["status", "message"])
        records = [TaskRecord(row, tuple(events.get(row.id, ()))) for row in rows]
        shown = [legacy_task(detailed_task(record)) for record in records if self._could_invoke(message, record)]
        return encode({"tasks": shown} | ({"nextCursor": more} if more else {}))

    async def _find_legacy(self, message: ClientMessage) -> TaskRecord | ServerTask:
        """Returns the task of a 2025-11-25 request. Raises BadEnvelope, UnknownMethod."""
        _check_version(message)
        return await self._find(message, message.string_param("taskId"))

    async def _find(self, message: ClientMessage, task_id: str) -> TaskRecord | ServerTask:
        """Returns the task. Raises BadEnvelope (-32602) for unknown tasks."""
        try:
            if not task_id.startswith(AGENT_TASK_PREFIX):
                return await self._servers.find(message, task_id)
            row = await self._reader.find_row(message.caller, FRONT_DOOR, task_id)
            record = await self._log.read_record(row.tenant, row.owner, row.id)
            if self._could_invoke(message, record):
                return record
        except UnknownTask:
            pass
        raise BadEnvelope(INVALID_PARAMS, "there is no such task", status=200)

    def _could_invoke(self, message: ClientMessage, record: TaskRecord) -> bool:
        """Returns whether the agent is a tool at this path that the caller may call. Canceling needs no permission to call."""
        agent, skill = record.row.agent, skill_of(record)
        try:
            entry = self._visible_entries.find_entry(message.caller, agent)
            place = self._visible_entries.view_of(message.caller, message.server_path) if message.server_path else None
        except UnknownName:
            return False
        selected = f"{agent}/{skill}" if skill else agent
        is_at_endpoint = place is None or (agent in {each.name for each in place.entries} and place.has_tool(selected))
        return (
            is_at_endpoint
            and entry.family is Family.AGENT
            and (message.method == CANCEL_METHOD or self._visible_entries.could_invoke(message.caller, agent, skill))
        )

    async def _detailed_task(self, message: ClientMessage, found: TaskRecord | ServerTask) -> dict[str, Any]:
        if isinstance(found, ServerTask):
            return await self._servers.detailed_task(message, found)
        shown = detailed_task(found, await self._agents.pending_answers(found))
        if message.is_modern:
            _check_askable(message.capabilities, shown.get("inputRequests", {}))
        return shown

    async def _cancel(self, message: ClientMessage, found: TaskRecord | ServerTask) -> None:
        if isinstance(found, ServerTask):
            await self._servers.cancel(message, found)
        elif not found.row.has_ended:
            await self._agents.cancel(message, found.row)

    async def _wait_until_ended(self, message: ClientMessage, task_id: str, peer: McpPeer | None) -> dict[str, Any]:
        """Returns the task when it has ended. A legacy client is asked the task's questions."""
        while True:
            found = await self._find(message, task_id)
            if isinstance(found, TaskRecord):
                found = await self._agents.wait_until_settled(found)
            shown = await self._detailed_task(message, found)
            if shown["status"] in ENDED_STATUSES:
                return shown
            if not (shown["status"] == "input_required" and peer is not None and await self._elicit_answers(message, found, shown, peer)):
                await asyncio.sleep(POLL_MS / 1000)

    async def _elicit_answers(
        self, message: ClientMessage, found: TaskRecord | ServerTask, task_document: Mapping[str, Any], peer: McpPeer
    ) -> bool:
        """Asks the client the task's questions. Returns whether it answered."""
        meta = related_task_meta(message.string_param("taskId"))
        try:
            if isinstance(found, TaskRecord):
                await self._agents.elicit_answers(message, found, peer, meta)
                return True
            answers = {
                key: await peer.ask(each["method"], Raw(encode({**each.get("params", {}), **meta})))
                for key, each in task_document["inputRequests"].items()
            }
        except PeerRefused:
            return False
        await self._servers.update(message, found, answers)
        return True


def _check_version(message: ClientMessage) -> None:
    """Raises UnknownMethod, since before 2026-07-28 only 2025-11-25 has tasks."""
    if message.session is not None and message.session.version != LEGACY_TASKS_VERSION:
        raise UnknownMethod


def _check_askable(capabilities: Mapping[str, Any], questions: Mapping[str, Any]) -> None:
    """Raises BadEnvelope (-32021) when the client lacks a capability that a question needs."""
    missing: dict[str, Any] = {}
    for question in questions.values():
        missing |= missing_capabilities(capabilities, question["method"], Raw(encode(question["params"])))
    if missing:
        raise BadEnvelope(MISSING_CAPABILITY, "the client lacks a capability that the agent needs", {"requiredCapabilities": missing})
