"""The requests of the tasks extension (SEP-2663) and of the experiment of 2025-11-25, for tasks of agents and of servers alike."""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from adapters.mcp_client.wire.messages import INVALID_PARAMS, MISSING_CAPABILITY
from adapters.mcp_client.wire.peer import Peer, PeerRefused
from gateway.ingress.http.errors import UnknownMethod
from gateway.ingress.mcp_server.catalogue.visible import Offers
from gateway.ingress.mcp_server.protocol.client_wishes import lacking
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.tasks.agent_tasks import AgentTasks, related, skill_of
from gateway.ingress.mcp_server.tasks.server_tasks import RelayedTasks
from gateway.ingress.mcp_server.tasks.store import ServerTask
from gateway.ingress.mcp_server.tasks.wire import CANCEL, ENDED, OLDER_VERSION, POLL_MS, RELATED, check_declared, detailed, older
from gateway.storage.paging import BadCursor
from gateway.tasks.log import TaskLog, TaskRecord, TaskRow, UnknownTask
from gateway.tasks.pages import Page, TaskPages
from gateway.tasks.reader import TaskReader
from registry.cards.card import Family
from registry.names import FRONT_DOOR
from registry.store import UnknownName

RESULT_SECONDS = 600.0  # for which tasks/result waits
NOT_DECLARED = "tasks are for clients that declare them"
TASK_PREFIX = "t_"
PAGE = 50
encode = msgspec.json.Encoder().encode
ACK = encode({"resultType": "complete"})


class Sources(Struct, frozen=True):
    """Where tasks are."""

    log: TaskLog
    pages: TaskPages
    agents: AgentTasks
    servers: RelayedTasks


class Tasks:
    """Whose a task is, and what its caller may do now, is looked at for each request. Unknown and foreign ones are the same."""

    def __init__(self, offers: Offers, sources: Sources) -> None:
        self._offers = offers
        self._log = sources.log
        self._reader = TaskReader(sources.log)
        self._pages = sources.pages
        self._agents = sources.agents
        self._servers = sources.servers

    async def get(self, asked: Asked, peer: Peer | None) -> bytes:
        """tasks/get of 2026-07-28."""
        check_declared(asked.capabilities, NOT_DECLARED)
        return encode({"resultType": "complete", **await self.shown(asked, asked.text("taskId"))})

    async def update(self, asked: Asked, peer: Peer | None) -> bytes:
        """tasks/update."""
        check_declared(asked.capabilities, NOT_DECLARED)
        responses = asked.object().get("inputResponses")
        if not isinstance(responses, dict):
            raise BadEnvelope(INVALID_PARAMS, "params.inputResponses must be an object")
        found = await self._found(asked, asked.text("taskId"))
        if isinstance(found, ServerTask):
            await self._servers.update(asked, found, responses)
        else:
            await self._agents.answer(asked, found, responses)
        return ACK

    async def cancel(self, asked: Asked, peer: Peer | None) -> bytes:
        """tasks/cancel of 2026-07-28: it is asked to end, and whether it does is seen later."""
        check_declared(asked.capabilities, NOT_DECLARED)
        await self._stop(asked, await self._found(asked, asked.text("taskId")))
        return ACK

    async def shown(self, asked: Asked, task_id: str) -> dict[str, Any]:
        """DetailedTask. Raises BadEnvelope."""
        return await self._shown(asked, await self._found(asked, task_id))

    async def followed(self, asked: Asked, task_id: str) -> TaskRow | ServerTask | None:
        """The row of an agent's task, or a server's; None where there is none."""
        try:
            found = await self._found(asked, task_id)
        except BadEnvelope:
            return None
        return found if isinstance(found, ServerTask) else found.row

    async def get_older(self, asked: Asked, peer: Peer | None) -> bytes:
        """tasks/get of 2025-11-25."""
        found = await self._older(asked)
        if isinstance(found, ServerTask) and self._servers.is_older(asked, found.server):
            return await self._servers.forwarded(asked, found, peer)
        return encode(older(await self._shown(asked, found)))

    async def result_older(self, asked: Asked, peer: Peer | None) -> bytes:
        """tasks/result: waits for the end, and asks meanwhile what the task asks. Raises BadEnvelope with the error of the call."""
        found, task_id = await self._older(asked), asked.text("taskId")
        if isinstance(found, ServerTask) and self._servers.is_older(asked, found.server):
            return await self._servers.forwarded(asked, found, peer)
        try:
            async with asyncio.timeout(RESULT_SECONDS):
                shown = await self._ended(asked, task_id, peer)
        except TimeoutError:
            raise BadEnvelope(-32603, "the task has not ended yet; ask for its result again", status=200) from None
        if shown["status"] == "cancelled":
            raise BadEnvelope(-32603, "the task was cancelled", status=200)
        if shown["status"] == "failed":
            error = shown.get("error") or {}
            raise BadEnvelope(error.get("code", -32603), str(error.get("message", "the call failed")), status=200)
        result = {name: value for name, value in (shown.get("result") or {}).items() if name != "resultType"}
        return encode({**result, "_meta": {**(result.get("_meta") or {}), RELATED: {"taskId": task_id}}})

    async def cancel_older(self, asked: Asked, peer: Peer | None) -> bytes:
        """tasks/cancel of 2025-11-25, which shows the task, and refuses one that has ended."""
        found = await self._older(asked)
        if isinstance(found, ServerTask) and self._servers.is_older(asked, found.server):
            return await self._servers.forwarded(asked, found, peer)
        if (await self._shown(asked, found))["status"] in ENDED:
            raise BadEnvelope(INVALID_PARAMS, "the task has ended already", status=200)
        await self._stop(asked, found)
        return encode(older(await self.shown(asked, asked.text("taskId"))))

    async def list_older(self, asked: Asked, peer: Peer | None) -> bytes:
        """tasks/list: those of agents, the last moved first."""
        _check_version(asked)
        cursor = asked.object().get("cursor", "")
        try:
            rows, more, _ = await self._pages.counted(asked.caller, Page(cursor=cursor if isinstance(cursor, str) else "?", limit=PAGE))
        except BadCursor:
            raise BadEnvelope(INVALID_PARAMS, "params.cursor is none of this server's") from None
        events = await self._pages.events(rows, ["status", "message"])
        records = [TaskRecord(row, tuple(events.get(row.id, ()))) for row in rows]
        shown = [older(detailed(record)) for record in records if self._may(asked, record)]
        return encode({"tasks": shown} | ({"nextCursor": more} if more else {}))

    async def _older(self, asked: Asked) -> TaskRecord | ServerTask:
        """Of a request of 2025-11-25. Raises BadEnvelope, UnknownMethod."""
        _check_version(asked)
        return await self._found(asked, asked.text("taskId"))

    async def _found(self, asked: Asked, task_id: str) -> TaskRecord | ServerTask:
        """Raises BadEnvelope (-32602)."""
        try:
            if not task_id.startswith(TASK_PREFIX):
                return await self._servers.find(asked, task_id)
            row = await self._reader.row(asked.caller, FRONT_DOOR, task_id)
            record = await self._log.record(row.tenant, row.owner, row.id)
            if self._may(asked, record):
                return record
        except UnknownTask:
            pass
        raise BadEnvelope(INVALID_PARAMS, "there is no such task", status=200)

    def _may(self, asked: Asked, record: TaskRecord) -> bool:
        """Whether the agent is a tool at this path, and the caller may call it now; what they may not, they may still stop."""
        agent, skill = record.row.agent, skill_of(record)
        try:
            entry = self._offers.entry(asked.caller, agent)
            place = self._offers.place(asked.caller, asked.server) if asked.server else None
        except UnknownName:
            return False
        selected = f"{agent}/{skill}" if skill else agent
        here = place is None or (agent in {each.name for each in place.entries} and place.has_tool(selected))
        return here and entry.family is Family.AGENT and (asked.method == CANCEL or self._offers.may_invoke(asked.caller, agent, skill))

    async def _shown(self, asked: Asked, found: TaskRecord | ServerTask) -> dict[str, Any]:
        if isinstance(found, ServerTask):
            return await self._servers.detailed(asked, found)
        shown = detailed(found, await self._agents.answered(found))
        if asked.modern:
            _check_askable(asked.capabilities, shown.get("inputRequests", {}))
        return shown

    async def _stop(self, asked: Asked, found: TaskRecord | ServerTask) -> None:
        if isinstance(found, ServerTask):
            await self._servers.cancel(asked, found)
        elif not found.row.ended:
            await self._agents.cancel(asked, found.row)

    async def _ended(self, asked: Asked, task_id: str, peer: Peer | None) -> dict[str, Any]:
        """The task when it has ended; an older client is asked what it asks."""
        while True:
            found = await self._found(asked, task_id)
            if isinstance(found, TaskRecord):
                found = await self._agents.settled(found)
            shown = await self._shown(asked, found)
            if shown["status"] in ENDED:
                return shown
            if not (shown["status"] == "input_required" and peer is not None and await self._ask(asked, found, shown, peer)):
                await asyncio.sleep(POLL_MS / 1000)

    async def _ask(self, asked: Asked, found: TaskRecord | ServerTask, shown: Mapping[str, Any], peer: Peer) -> bool:
        """Whether the client answered."""
        meta = related(asked.text("taskId"))
        try:
            if isinstance(found, TaskRecord):
                await self._agents.ask(asked, found, peer, meta)
                return True
            answers = {
                key: await peer.ask(each["method"], Raw(encode({**each.get("params", {}), **meta})))
                for key, each in shown["inputRequests"].items()
            }
        except PeerRefused:
            return False
        await self._servers.update(asked, found, answers)
        return True


def _check_version(asked: Asked) -> None:
    """Raises UnknownMethod: no other version before 2026-07-28 has tasks."""
    if asked.session is not None and asked.session.version != OLDER_VERSION:
        raise UnknownMethod


def _check_askable(capabilities: Mapping[str, Any], questions: Mapping[str, Any]) -> None:
    """Raises BadEnvelope (-32021): nobody is asked what their client did not declare."""
    missing: dict[str, Any] = {}
    for question in questions.values():
        missing |= lacking(capabilities, question["method"], Raw(encode(question["params"])))
    if missing:
        raise BadEnvelope(MISSING_CAPABILITY, "the agent asks what the client did not declare", {"requiredCapabilities": missing})
