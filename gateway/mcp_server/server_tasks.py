"""Tasks of MCP servers that speak the extension: under ids of ours, for whoever called the tool, ruled on at each request."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
from msgspec import Raw, Struct

from adapters.contract import UpstreamFault
from adapters.mcp_crossing import modern_params
from adapters.mcp_peer import Peer, PeerRefused
from adapters.mcp_wire import MISSING_CAPABILITY, McpRequest, envelope_of
from gateway.broker import Broker, ServerCall
from gateway.mcp_server.asked import Asked
from gateway.mcp_server.modern import BadEnvelope
from gateway.mcp_server.offers import Offers, own_names
from gateway.mcp_server.task_store import ServerTask, ServerTasks
from gateway.mcp_server.task_words import OFFERED, RELATED, takes_tasks
from gateway.mcp_server.uris import document_outward, result_outward
from gateway.mcp_server.wanted import lacking
from gateway.tasks import UnknownTask
from policies.grant import calling
from policies.strict_json import parse
from registry.store import UnknownName

MARK = b'"task"'  # stands in each result that is a task, of either era
encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, Raw]).decode


class _Declared(Struct, frozen=True):
    """What a server is told of the client; nothing is said or asked before the answer."""

    capabilities: Mapping[str, Any]

    async def notify(self, method: str, params: Raw) -> None:
        return None

    async def ask(self, method: str, params: Raw) -> Raw:
        raise PeerRefused(-32601, "Nothing can be asked before the answer")


class _Asking:
    """An older client, as one that takes tasks."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.capabilities: Mapping[str, Any] = {**peer.capabilities, **OFFERED}
        self.notify = peer.notify
        self.ask = peer.ask


class RelayedTasks:
    """Asks servers about them."""

    def __init__(self, broker: Broker, offers: Offers, kept: ServerTasks) -> None:
        self._broker = broker
        self._offers = offers
        self._kept = kept

    async def taken(self, asked: Asked, server: str, tool: str, result: bytes) -> bytes | None:
        """A result that is a new task under an id of ours; None for any other."""
        members: dict[str, Any] = dict(_members(result))
        if asked.modern:
            if bytes(members.get("resultType", b"")) != MARK:
                return None
            if not takes_tasks(asked.capabilities):
                raise UpstreamFault("The server answered with a task, which the client did not say that it takes")
            task = await self._keep(asked, server, tool, members)
            return encode({**members, "taskId": task.id})
        inner = members.get("task")
        if inner is None or bytes(inner)[:1] != b"{":
            return None
        seed: dict[str, Any] = dict(_members(inner))
        task = await self._keep(asked, server, tool, seed)
        return encode({**members, "task": {**seed, "taskId": task.id}})

    def declaring(self, asked: Asked, server: str, request: McpRequest) -> McpRequest:
        """A call for which an older client wants a task, as of one that takes tasks; `task` itself is no word of the extension's.

        A server of that client's own era gets it as it is.
        """
        if self.is_older(asked, server):
            return request
        params = {name: value for name, value in _members(request.params).items() if name != "task"}
        declared = _Asking(request.peer) if request.peer is not None else _Declared(OFFERED)
        return replace(request, params=encode(params), peer=declared, session="")

    def is_older(self, asked: Asked, server: str) -> bool:
        """Whether client and server are both of the era of the experiment, which then goes through as it is. Raises UnknownName."""
        return not asked.modern and self._offers.server(asked.caller, server).facts.get("era") in ("legacy", "sse")

    async def forwarded(self, asked: Asked, task: ServerTask, peer: Peer | None) -> bytes:
        """A request about a task, as an older client wrote it, to a server of its era. Raises what the broker raises."""
        params = Raw(encode({**asked.object(), "taskId": task.own, "_meta": dict(asked.trail.headers)}))
        raw = envelope_of(asked.id, asked.method, params)
        session = (asked.session.id, asked.session.level) if asked.session is not None else ("", "")
        request = McpRequest(asked.id, task.own, raw, bytes(params), False, asked.method, {}, peer, *session)
        result: dict[str, Any] = dict(_members(await self._reach(asked, task, request)))
        if "taskId" in result:
            result["taskId"] = task.id
        if asked.method == "tasks/result":
            meta = _members(result.get("_meta", b"{}"))
            result["_meta"] = {**meta, RELATED: {"taskId": task.id}}
        encoded = encode(result)
        return encoded if own_names(asked.server) else result_outward(task.server, encoded)

    async def find(self, asked: Asked, task_id: str) -> ServerTask:
        """Raises UnknownTask where the caller may not, or not any more, call the tool at this path."""
        task = await self._kept.find(asked.caller, task_id)
        try:
            place = self._offers.place(asked.caller, asked.server) if asked.server else None
            server = self._offers.server(asked.caller, task.server)
            here = place is None or (server.name in {each.name for each in place.entries} and place.has_tool(f"{task.server}.{task.tool}"))
            if here and self._offers.may(asked.caller, server, calling(task.server, task.tool)):
                return task
        except UnknownName:
            pass
        raise UnknownTask

    async def detailed(self, asked: Asked, task: ServerTask) -> dict[str, Any]:
        """DetailedTask as the server gives it, with our names. Raises BadEnvelope for questions that the client can't be asked."""
        shown = parse(await self.request(asked, task, "tasks/get", {}))
        result = shown.get("result")
        if isinstance(result, dict) and not own_names(asked.server):
            shown["result"] = document_outward(task.server, result)
        missing: dict[str, Any] = {}
        questions = shown.get("inputRequests")
        for question in questions.values() if isinstance(questions, dict) else ():
            if isinstance(question, dict):
                missing |= lacking(asked.capabilities, str(question.get("method")), Raw(encode(question.get("params", {}))))
        if missing:
            raise BadEnvelope(MISSING_CAPABILITY, "the server asks what the client did not declare", {"requiredCapabilities": missing})
        return {**shown, "taskId": task.id}

    async def request(self, asked: Asked, task: ServerTask, method: str, more: Mapping[str, Any]) -> bytes:
        """Asks the server of the task, as a client that takes tasks. Raises what the broker raises."""
        declared = _Declared({**asked.capabilities, **_extended(asked)})
        meta = Raw(encode(dict(asked.trail.headers)))
        params = Raw(encode(modern_params({**more, "taskId": task.own, "_meta": meta}, declared)))
        request_id = asked.id if asked.modern else f"{asked.id}-{method}"
        request = McpRequest(request_id, task.own, envelope_of(request_id, method, params), bytes(params), True, method)
        return await self._reach(asked, task, request)

    async def _reach(self, asked: Asked, task: ServerTask, request: McpRequest) -> bytes:
        act = calling(task.server, task.tool)
        return (await self._broker.reach(asked.caller, ServerCall(task.server, act, None, request, asked.trail))).result

    async def _keep(self, asked: Asked, server: str, tool: str, members: Mapping[str, Raw]) -> ServerTask:
        own = msgspec.json.decode(members["taskId"], type=str) if "taskId" in members else ""
        return await self._kept.keep(asked.caller, server, tool, own)


def _extended(asked: Asked) -> dict[str, Any]:
    extensions = asked.capabilities.get("extensions")
    return {"extensions": {**(extensions if isinstance(extensions, dict) else {}), **OFFERED["extensions"]}}
