"""Tasks of MCP servers that speak the extension: under ids of ours, for whoever called the tool, ruled on at each request."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import structlog
from msgspec import Raw, Struct

from adapters.contract import UpstreamFault
from adapters.mcp_client.redaction import redacted, reveal
from adapters.mcp_client.wire.eras import checked, modern_params
from adapters.mcp_client.wire.messages import McpAnswer, McpRefused, McpRequest, envelope_of, members_of
from adapters.mcp_client.wire.peer import Peer, PeerRefused
from gateway.calls.broker import Broker
from gateway.ingress.mcp_server.catalogue.definitions import OLDER_ERAS, ServerTool
from gateway.ingress.mcp_server.catalogue.uris import document_outward, result_outward
from gateway.ingress.mcp_server.catalogue.visible import Offers, own_names
from gateway.ingress.mcp_server.elicitation.server_questions import NOT_VALID, check_askable, questions_in
from gateway.ingress.mcp_server.protocol.client_wishes import STATUS
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.tasks.awaited_tasks import AwaitedTasks, own_task_of
from gateway.ingress.mcp_server.tasks.legacy_server_tasks import OlderServerTasks, askable, begun
from gateway.ingress.mcp_server.tasks.store import ServerTask, ServerTasks
from gateway.ingress.mcp_server.tasks.wire import CANCEL, OFFERED, RELATED, STATUSES, takes_tasks
from gateway.tasks.log import UnknownTask
from policies.delegation.rulings import calling
from policies.ids import new_id
from registry.store import UnknownName

MARK = b'"task"'  # stands in each result that is a task, of either era
encode = msgspec.json.Encoder().encode
_members = msgspec.json.Decoder(dict[str, Raw]).decode
_object = msgspec.json.Decoder(dict[str, Any]).decode
_text = msgspec.json.Decoder(str).decode
log = structlog.get_logger()


class _Declared(Struct, frozen=True):
    """What a server is told of the client; nothing is said or asked before the answer."""

    capabilities: Mapping[str, Any]

    async def notify(self, method: str, params: Raw) -> None:
        return None

    async def ask(self, method: str, params: Raw) -> Raw:
        raise PeerRefused(-32601, "Nothing can be asked before the answer")


class _Asking:
    """A client with other capabilities: an older one that takes tasks, or what an older server is told of a newer one."""

    def __init__(self, peer: Peer, capabilities: Mapping[str, Any]) -> None:
        self.capabilities = capabilities
        self.notify = peer.notify
        self.ask = peer.ask


class _Renaming:
    """A client that knows a task by our id, before a server that knows it by its own."""

    def __init__(self, peer: Peer, task: ServerTask) -> None:
        self._peer = peer
        self._task = task
        self.capabilities: Mapping[str, Any] = peer.capabilities

    async def notify(self, method: str, params: Raw) -> None:
        named = self._named(params)
        if method == STATUS:
            if named.get("taskId") != self._task.own:
                return  # of another task, about which nobody asks here
            named = _told(self._task, {**named, "taskId": self._task.id})
        await self._peer.notify(method, Raw(encode(named)))

    async def ask(self, method: str, params: Raw) -> Raw:
        return await self._peer.ask(method, Raw(encode(self._named(params))))

    def _named(self, params: Raw) -> dict[str, Any]:
        members: dict[str, Any] = checked(params, _object)
        meta = members.get("_meta")
        if isinstance(meta, dict) and RELATED in meta:
            members["_meta"] = {**meta, RELATED: {"taskId": self._task.id}}
        return members


class RelayedTasks:
    """Asks servers about them."""

    def __init__(self, broker: Broker, offers: Offers, kept: ServerTasks, older: OlderServerTasks) -> None:
        self._broker = broker
        self._offers = offers
        self._kept = kept
        self._older = older
        self._awaited = AwaitedTasks(broker)

    async def taken(self, asked: Asked, target: ServerTool, answer: McpAnswer) -> bytes | None:
        """A result that is a new task under an id of ours; None for any other."""
        members: dict[str, Any] = dict(_members(answer.result))
        if asked.modern:
            if bytes(members.get("resultType", b"")) != MARK:
                return await self._begun(asked, target, members, answer.decision)
            if not takes_tasks(asked.capabilities):
                raise UpstreamFault("The server answered with a task, which the client did not say that it takes")
            task = await self._kept.keep(asked.caller, _seed(asked, target, _own(members)), answer.decision)
            return encode({**members, "taskId": task.id})
        inner = members.get("task")
        if inner is None or bytes(inner)[:1] != b"{":
            return None
        seed: dict[str, Any] = dict(_members(inner))
        task = await self._kept.keep(asked.caller, _seed(asked, target, _own(seed)), answer.decision)
        return encode({**members, "task": {**seed, "taskId": task.id}})

    async def _begun(self, asked: Asked, target: ServerTool, members: Mapping[str, Raw], decision: str) -> bytes | None:
        """A task of an older server, for a client that takes tasks."""
        inner, capabilities = members.get("task"), asked.capabilities
        if inner is None or "content" in members or not takes_tasks(capabilities):
            return None

        async def named(own: str) -> str:
            return (await self._kept.keep(asked.caller, _seed(asked, target, own, askable(capabilities)), decision)).id

        return await begun(inner, named)

    def augmented(self, asked: Asked, target: ServerTool, request: McpRequest) -> McpRequest:
        """A call of an older server's tool that may be a task: as one where the client takes tasks, or the server knows no other way."""
        if waits_for(asked, target):
            return replace(request, params=encode({**_members(request.params), "task": {}}))
        if not (asked.modern and takes_tasks(asked.capabilities)):
            return request
        told = askable(asked.capabilities)
        peer = _Asking(request.peer, told) if request.peer is not None else _Declared(told)
        return replace(request, params=encode({**_members(request.params), "task": {}}), peer=peer)

    async def awaited(self, asked: Asked, target: ServerTool, request: McpRequest, answer: McpAnswer) -> McpAnswer:
        """The result of a task that the server made of a call whose client takes none. Raises what the broker raises."""
        own = own_task_of(answer.result)
        if own is None:
            return answer
        seed = _seed(asked, target, own)
        number = answer.decision.partition("_")[2]
        task = ServerTask(f"mt_{number}" if number else new_id("mt"), seed.server, seed.tool, own, arguments=seed.arguments)
        return await self._awaited.result(asked, task, request)

    def declaring(self, asked: Asked, server: str, request: McpRequest) -> McpRequest:
        """A call for which an older client wants a task, as of one that takes tasks; `task` itself is no word of the extension's.

        A server of that client's own era gets it as it is.
        """
        if self.is_older(asked, server):
            return request
        params = {name: value for name, value in _members(request.params).items() if name != "task"}
        declared = _Asking(request.peer, {**request.peer.capabilities, **OFFERED}) if request.peer is not None else _Declared(OFFERED)
        return replace(request, params=encode(params), peer=declared, session="")

    def is_older(self, asked: Asked, server: str) -> bool:
        """Whether client and server are both of the era of the experiment, which then goes through as it is. Raises UnknownName."""
        return not asked.modern and self._is_of_that_era(asked, server)

    def _is_of_that_era(self, asked: Asked, server: str) -> bool:
        return self._offers.server(asked.caller, server).facts.get("era") in OLDER_ERAS

    async def forwarded(self, asked: Asked, task: ServerTask, peer: Peer | None) -> bytes:
        """A request about a task, as an older client wrote it, to a server of its era. Raises what the broker raises."""
        params = Raw(encode({**asked.object(), "taskId": task.own, "_meta": dict(asked.trail.headers)}))
        raw = envelope_of(asked.id, asked.method, params)
        session = (asked.session.id, asked.session.level) if asked.session is not None else ("", "")
        named = _Renaming(peer, task) if peer is not None else None
        request = McpRequest(asked.id, task.own, raw, bytes(params), False, asked.method, {}, named, *session)
        answer = await self._reach(asked, task, request)
        result: dict[str, Any] = dict(_members(answer)) if asked.method == "tasks/result" else _told(task, checked(answer, _object))
        if "taskId" in result:
            result["taskId"] = task.id
        if asked.method == "tasks/result":
            meta = _members(result.get("_meta", b"{}"))
            result["_meta"] = {**meta, RELATED: {"taskId": task.id}}
        encoded = encode(result)
        return encoded if own_names(asked.server) else result_outward(task.server, encoded)

    async def find(self, asked: Asked, task_id: str) -> ServerTask:
        """Raises UnknownTask where the caller may not, or not any more, call the tool at this path, but to stop it."""
        task = await self._kept.find(asked.caller, task_id)
        try:
            place = self._offers.place(asked.caller, asked.server) if asked.server else None
            server = self._offers.server(asked.caller, task.server)
            here = place is None or (server.name in {each.name for each in place.entries} and place.has_tool(f"{task.server}.{task.tool}"))
            act = calling(task.server, task.tool)
            stops = asked.method == CANCEL and self._offers.may_stop(asked.caller, act)
            if here and (stops or self._offers.may(asked.caller, server, act)):
                return task
        except UnknownName:
            pass
        raise UnknownTask

    async def detailed(self, asked: Asked, task: ServerTask) -> dict[str, Any]:
        """DetailedTask, with our names. Raises BadEnvelope for questions that the client can't be asked, and UpstreamFault for no task."""
        if asked.modern and self._is_of_that_era(asked, task.server):
            shown = await self._older.detailed(asked, task)
        else:
            shown = await self._detailed(asked, task)
        shown = _told(task, shown)
        result = shown.get("result")
        if isinstance(result, dict) and not own_names(asked.server):
            shown["result"] = document_outward(task.server, result)
        return {**shown, "taskId": task.id}

    async def update(self, asked: Asked, task: ServerTask, responses: Mapping[str, Any]) -> None:
        """tasks/update."""
        if asked.modern and self._is_of_that_era(asked, task.server):
            await self._older.update(asked, task, responses)
        else:
            await self._request(asked, task, "tasks/update", {"inputResponses": responses})

    async def cancel(self, asked: Asked, task: ServerTask) -> None:
        """tasks/cancel."""
        if asked.modern and self._is_of_that_era(asked, task.server):
            await self._older.cancel(asked, task)
        else:
            await self._request(asked, task, "tasks/cancel", {})

    async def _detailed(self, asked: Asked, task: ServerTask) -> dict[str, Any]:
        text = await self._request(asked, task, "tasks/get", {})
        shown: dict[str, Any] = checked(text, _object)
        if not isinstance(shown.get("status"), str) or shown["status"] not in STATUSES:
            raise UpstreamFault(NOT_VALID, "no task")
        if shown["status"] == "input_required":
            check_askable(asked.capabilities, questions_in(members_of(text)))
        return shown

    async def _request(self, asked: Asked, task: ServerTask, method: str, more: Mapping[str, Any]) -> bytes:
        """Asks the server of the task, as a client that takes tasks. Raises what the broker raises."""
        declared = _Declared({**asked.capabilities, **_extended(asked)})
        meta = Raw(encode(dict(asked.trail.headers)))
        params = Raw(encode(modern_params({**more, "taskId": task.own, "_meta": meta}, declared)))
        request_id = asked.id if asked.modern else f"{asked.id}-{method}"
        request = McpRequest(request_id, task.own, envelope_of(request_id, method, params), bytes(params), True, method)
        return await self._reach(asked, task, request)

    async def _reach(self, asked: Asked, task: ServerTask, request: McpRequest) -> bytes:
        return (await self._broker.reach(asked.caller, task.call(request, asked.trail, stops=asked.method == CANCEL))).result


def waits_for(asked: Asked, target: ServerTool) -> bool:
    """Whether a server calls the tool as a task only, and the client takes none: then the gateway waits for it."""
    if target.tasks != "required":
        return False
    return not takes_tasks(asked.capabilities) if asked.modern else "task" not in asked.params


def _told(task: ServerTask, shown: dict[str, Any]) -> dict[str, Any]:
    """A failure as that of any call: with the words of the server's error and of its status, as far as they are plain."""
    if shown.get("status") != "failed":
        return shown
    words, error = shown.get("statusMessage"), shown.get("error")
    rest = {name: value for name, value in shown.items() if name not in ("statusMessage", "error")}
    status = redacted(words) if isinstance(words, str) else ""
    refused = _refused(error if isinstance(error, dict) else {})
    problem = {"error": {"code": refused.code, "message": refused.public}} if error is not None else {}
    if problem or status != words:
        detail = f"{words or ''} {error or ''}".strip()
        log.warning("server_failed", server=task.server, task_id=task.id, problem=refused.public, detail=detail)
    return {**rest, **({"statusMessage": status} if status else {}), **problem}


def _refused(error: Mapping[str, Any]) -> McpRefused:
    """The error of a task that failed, as that of a call."""
    code, message = error.get("code"), error.get("message")
    refused = McpRefused(code if type(code) is int else -32603, said=message if isinstance(message, str) else "")
    reveal(refused, "")
    return refused


def _seed(asked: Asked, target: ServerTool, own: str, told: Mapping[str, Any] | None = None) -> ServerTask:
    """A task that has no id of ours yet."""
    return ServerTask("", target.server, target.tool, own, told or {}, asked.object().get("arguments", {}))


def _own(members: Mapping[str, Raw]) -> str:
    """The server's id of a task. Raises UpstreamFault."""
    return str(checked(members.get("taskId", Raw(b"null")), _text))


def _extended(asked: Asked) -> dict[str, Any]:
    extensions = asked.capabilities.get("extensions")
    return {"extensions": {**(extensions if isinstance(extensions, dict) else {}), **OFFERED["extensions"]}}
