"""Tasks of MCP servers under ids of the gateway, for the caller of the tool only, authorized at each request."""

from collections.abc import Mapping
from typing import Any

import msgspec
import structlog
from msgspec import Raw, Struct
from msgspec.structs import replace

from adapters.contract import UpstreamFault
from adapters.mcp_client.redaction import add_server_words, redact_text
from adapters.mcp_client.wire.eras import decode_checked, modern_params
from adapters.mcp_client.wire.messages import McpAnswer, McpRefused, McpRequest, envelope_of, members_of
from adapters.mcp_client.wire.peer import McpPeer, PeerRefused
from gateway.calls.server_calls import ServerCalls
from gateway.ingress.mcp_server.catalogue.definitions import LEGACY_ERAS, ServerTool
from gateway.ingress.mcp_server.catalogue.uris import rewrite_document, rewrite_result
from gateway.ingress.mcp_server.catalogue.visible import VisibleEntries, uses_own_names
from gateway.ingress.mcp_server.elicitation.server_questions import NOT_VALID_TEXT, check_askable, questions_in
from gateway.ingress.mcp_server.protocol.client_wishes import TASK_STATUS
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.tasks.awaited_tasks import AwaitedTasks, server_task_id_of
from gateway.ingress.mcp_server.tasks.legacy_server_tasks import LegacyServerTasks, askable_capabilities, create_task_result
from gateway.ingress.mcp_server.tasks.store import ServerTask, ServerTaskStore
from gateway.ingress.mcp_server.tasks.wire import CANCEL_METHOD, RELATED_TASK_KEY, STATUSES, TASKS_CAPABILITY, declares_tasks
from gateway.tasks.log import UnknownTask
from policies.delegation.rulings import act_of_calling_tool
from policies.ids import new_id
from registry.store import UnknownName

TASK_HINT = b'"task"'  # occurs in each result that is a task, of either era
encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_decode_text = msgspec.json.Decoder(str).decode
log = structlog.get_logger()


class _DeclaringPeer(Struct, frozen=True):
    """The client's capabilities for a server; notifications and questions before the answer are not passed on."""

    capabilities: Mapping[str, Any]

    async def notify(self, method: str, params: Raw) -> None:
        return None

    async def ask(self, method: str, params: Raw) -> Raw:
        raise PeerRefused(-32601, "Nothing can be asked before the answer")


class _PeerWithCapabilities:
    """A client with other capabilities: a legacy one with tasks, or a modern one as a legacy server sees it."""

    def __init__(self, peer: McpPeer, capabilities: Mapping[str, Any]) -> None:
        self.capabilities = capabilities
        self.notify = peer.notify
        self.ask = peer.ask


class _TaskRenamingPeer:
    """A client that knows a task by the gateway's id, for a server that knows it by its own."""

    def __init__(self, peer: McpPeer, task: ServerTask) -> None:
        self._peer = peer
        self._task = task
        self.capabilities: Mapping[str, Any] = peer.capabilities

    async def notify(self, method: str, params: Raw) -> None:
        named = self._rename_task(params)
        if method == TASK_STATUS:
            if named.get("taskId") != self._task.server_task_id:
                return  # a notification of another task
            named = _redact_failure(self._task, {**named, "taskId": self._task.id})
        await self._peer.notify(method, Raw(encode(named)))

    async def ask(self, method: str, params: Raw) -> Raw:
        return await self._peer.ask(method, Raw(encode(self._rename_task(params))))

    def _rename_task(self, params: Raw) -> dict[str, Any]:
        members: dict[str, Any] = decode_checked(params, _decode_object)
        meta = members.get("_meta")
        if isinstance(meta, dict) and RELATED_TASK_KEY in meta:
            members["_meta"] = {**meta, RELATED_TASK_KEY: {"taskId": self._task.id}}
        return members


class RelayedTasks:
    """Forwards requests about tasks to their servers."""

    def __init__(
        self, server_calls: ServerCalls, visible_entries: VisibleEntries, task_store: ServerTaskStore, legacy_tasks: LegacyServerTasks
    ) -> None:
        self._server_calls = server_calls
        self._visible_entries = visible_entries
        self._task_store = task_store
        self._legacy_tasks = legacy_tasks
        self._awaited_tasks = AwaitedTasks(server_calls)

    async def store_new_task(self, message: ClientMessage, target: ServerTool, answer: McpAnswer) -> bytes | None:
        """Returns a result that is a new task with the gateway's id, or None for any other result."""
        members: dict[str, Any] = dict(_decode_members(answer.result))
        if message.is_modern:
            if bytes(members.get("resultType", b"")) != TASK_HINT:
                return await self._store_legacy_task(message, target, members, answer.decision_id)
            if not declares_tasks(message.capabilities):
                raise UpstreamFault("The server answered with a task, but the client did not declare tasks")
            task = await self._task_store.write(
                message.caller, _new_server_task(message, target, _server_task_id_in(members)), answer.decision_id
            )
            return encode({**members, "taskId": task.id})
        inner = members.get("task")
        if inner is None or bytes(inner)[:1] != b"{":
            return None
        seed: dict[str, Any] = dict(_decode_members(inner))
        task = await self._task_store.write(message.caller, _new_server_task(message, target, _server_task_id_in(seed)), answer.decision_id)
        return encode({**members, "task": {**seed, "taskId": task.id}})

    async def _store_legacy_task(
        self, message: ClientMessage, target: ServerTool, members: Mapping[str, Raw], decision_id: str
    ) -> bytes | None:
        """Stores a new task of a legacy server for a client that declares tasks. Returns its result, or None."""
        inner, capabilities = members.get("task"), message.capabilities
        if inner is None or "content" in members or not declares_tasks(capabilities):
            return None

        async def store_task(server_task_id: str) -> str:
            return (
                await self._task_store.write(
                    message.caller, _new_server_task(message, target, server_task_id, askable_capabilities(capabilities)), decision_id
                )
            ).id

        return await create_task_result(inner, store_task)

    def as_task_call(self, message: ClientMessage, target: ServerTool, request: McpRequest) -> McpRequest:
        """Returns the call of a legacy server's tool as a task call, where the client declares tasks or the tool requires them."""
        if must_wait_for_task(message, target):
            return replace(request, params=encode({**_decode_members(request.params), "task": {}}))
        if not (message.is_modern and declares_tasks(message.capabilities)):
            return request
        capabilities = askable_capabilities(message.capabilities)
        peer = _PeerWithCapabilities(request.peer, capabilities) if request.peer is not None else _DeclaringPeer(capabilities)
        return replace(request, params=encode({**_decode_members(request.params), "task": {}}), peer=peer)

    async def wait_for_task(self, message: ClientMessage, target: ServerTool, request: McpRequest, answer: McpAnswer) -> McpAnswer:
        """Returns the result of a call that the server made a task, for a client without tasks. Raises what ServerCalls.call raises."""
        own = server_task_id_of(answer.result)
        if own is None:
            return answer
        seed = _new_server_task(message, target, own)
        number = answer.decision_id.partition("_")[2]
        task = ServerTask(f"mt_{number}" if number else new_id("mt"), seed.server, seed.tool, own, arguments=seed.arguments)
        return await self._awaited_tasks.wait_for_result(message, task, request)

    def declare_tasks(self, message: ClientMessage, server: str, request: McpRequest) -> McpRequest:
        """Returns a legacy client's task call as one of a client with the extension, without the parameter `task`.

        The call to a legacy server stays as it is.
        """
        if self.are_both_legacy(message, server):
            return request
        params = {name: value for name, value in _decode_members(request.params).items() if name != "task"}
        declared = (
            _PeerWithCapabilities(request.peer, {**request.peer.capabilities, **TASKS_CAPABILITY})
            if request.peer is not None
            else _DeclaringPeer(TASKS_CAPABILITY)
        )
        return replace(request, params=encode(params), peer=declared, client_session="")

    def are_both_legacy(self, message: ClientMessage, server: str) -> bool:
        """Returns whether client and server both speak the legacy form of tasks, which is then forwarded. Raises UnknownName."""
        return not message.is_modern and self._is_legacy_server(message, server)

    def _is_legacy_server(self, message: ClientMessage, server: str) -> bool:
        return self._visible_entries.find_server(message.caller, server).facts.get("era") in LEGACY_ERAS

    async def forward(self, message: ClientMessage, task: ServerTask, peer: McpPeer | None) -> bytes:
        """Forwards a legacy client's request about a task to a legacy server. Raises what ServerCalls.call raises."""
        params = Raw(encode({**message.params_object(), "taskId": task.server_task_id, "_meta": dict(message.trace_context.headers)}))
        raw = envelope_of(message.id, message.method, params)
        session = (message.session.id, message.session.level) if message.session is not None else ("", "")
        named = _TaskRenamingPeer(peer, task) if peer is not None else None
        request = McpRequest(message.id, task.server_task_id, raw, bytes(params), False, message.method, {}, named, *session)
        answer = await self._call_server(message, task, request)
        result: dict[str, Any] = (
            dict(_decode_members(answer))
            if message.method == "tasks/result"
            else _redact_failure(task, decode_checked(answer, _decode_object))
        )
        if "taskId" in result:
            result["taskId"] = task.id
        if message.method == "tasks/result":
            meta = _decode_members(result.get("_meta", b"{}"))
            result["_meta"] = {**meta, RELATED_TASK_KEY: {"taskId": task.id}}
        encoded = encode(result)
        return encoded if uses_own_names(message.server_path) else rewrite_result(task.server, encoded)

    async def find(self, message: ClientMessage, task_id: str) -> ServerTask:
        """Returns the task. Raises UnknownTask when the caller may not call its tool at this path now; canceling stays possible."""
        task = await self._task_store.find(message.caller, task_id)
        try:
            place = self._visible_entries.view_of(message.caller, message.server_path) if message.server_path else None
            server = self._visible_entries.find_server(message.caller, task.server)
            is_at_endpoint = place is None or (
                server.name in {each.name for each in place.entries} and place.has_tool(f"{task.server}.{task.tool}")
            )
            act = act_of_calling_tool(task.server, task.tool)
            stops = message.method == CANCEL_METHOD and self._visible_entries.may_stop(message.caller, act)
            if is_at_endpoint and (stops or self._visible_entries.could_allow(message.caller, server, act)):
                return task
        except UnknownName:
            pass
        raise UnknownTask

    async def detailed_task(self, message: ClientMessage, task: ServerTask) -> dict[str, Any]:
        """Returns a DetailedTask with the gateway's names.

        Raises BadEnvelope for questions that the client can't be asked, and UpstreamFault for an answer that is not a task.
        """
        if message.is_modern and self._is_legacy_server(message, task.server):
            shown = await self._legacy_tasks.detailed_task(message, task)
        else:
            shown = await self._read_detailed_task(message, task)
        shown = _redact_failure(task, shown)
        result = shown.get("result")
        if isinstance(result, dict) and not uses_own_names(message.server_path):
            shown["result"] = rewrite_document(task.server, result)
        return {**shown, "taskId": task.id}

    async def update(self, message: ClientMessage, task: ServerTask, responses: Mapping[str, Any]) -> None:
        """Forwards tasks/update."""
        if message.is_modern and self._is_legacy_server(message, task.server):
            await self._legacy_tasks.update(message, task, responses)
        else:
            await self._send_request(message, task, "tasks/update", {"inputResponses": responses})

    async def cancel(self, message: ClientMessage, task: ServerTask) -> None:
        """Forwards tasks/cancel."""
        if message.is_modern and self._is_legacy_server(message, task.server):
            await self._legacy_tasks.cancel(message, task)
        else:
            await self._send_request(message, task, "tasks/cancel", {})

    async def _read_detailed_task(self, message: ClientMessage, task: ServerTask) -> dict[str, Any]:
        text = await self._send_request(message, task, "tasks/get", {})
        shown: dict[str, Any] = decode_checked(text, _decode_object)
        if not isinstance(shown.get("status"), str) or shown["status"] not in STATUSES:
            raise UpstreamFault(NOT_VALID_TEXT, "not a task")
        if shown["status"] == "input_required":
            check_askable(message.capabilities, questions_in(members_of(text)))
        return shown

    async def _send_request(self, message: ClientMessage, task: ServerTask, method: str, other_params: Mapping[str, Any]) -> bytes:
        """Sends a request about the task on behalf of a client with tasks. Raises what ServerCalls.call raises."""
        declared = _DeclaringPeer({**message.capabilities, **_extensions_with_tasks(message)})
        meta = Raw(encode(dict(message.trace_context.headers)))
        params = Raw(encode(modern_params({**other_params, "taskId": task.server_task_id, "_meta": meta}, declared)))
        request_id = message.id if message.is_modern else f"{message.id}-{method}"
        request = McpRequest(request_id, task.server_task_id, envelope_of(request_id, method, params), bytes(params), True, method)
        return await self._call_server(message, task, request)

    async def _call_server(self, message: ClientMessage, task: ServerTask, request: McpRequest) -> bytes:
        return (
            await self._server_calls.call(
                message.caller, task.build_call(request, message.trace_context, is_cancel=message.method == CANCEL_METHOD)
            )
        ).result


def must_wait_for_task(message: ClientMessage, target: ServerTool) -> bool:
    """Returns whether the tool requires tasks and the client has none, so that the gateway waits for the task."""
    if target.task_support != "required":
        return False
    return not declares_tasks(message.capabilities) if message.is_modern else "task" not in message.params


def _redact_failure(task: ServerTask, task_document: dict[str, Any]) -> dict[str, Any]:
    """Returns a failed task with the plain parts of the server's error and status texts only, like any failed call."""
    if task_document.get("status") != "failed":
        return task_document
    words, error = task_document.get("statusMessage"), task_document.get("error")
    rest = {name: value for name, value in task_document.items() if name not in ("statusMessage", "error")}
    status = redact_text(words) if isinstance(words, str) else ""
    refused = _redacted_error(error if isinstance(error, dict) else {})
    problem = {"error": {"code": refused.code, "message": refused.public}} if error is not None else {}
    if problem or status != words:
        detail = f"{words or ''} {error or ''}".strip()
        log.warning("server_failed", server=task.server, task_id=task.id, problem=refused.public, detail=detail)
    return {**rest, **({"statusMessage": status} if status else {}), **problem}


def _redacted_error(error: Mapping[str, Any]) -> McpRefused:
    """Returns the error of a failed task, redacted like that of a call."""
    code, message = error.get("code"), error.get("message")
    refused = McpRefused(code if type(code) is int else -32603, server_message=message if isinstance(message, str) else "")
    add_server_words(refused, "")
    return refused


def _new_server_task(
    message: ClientMessage, target: ServerTool, server_task_id: str, capabilities: Mapping[str, Any] | None = None
) -> ServerTask:
    """Returns a task that has no id of the gateway yet."""
    return ServerTask("", target.server, target.tool, server_task_id, capabilities or {}, message.params_object().get("arguments", {}))


def _server_task_id_in(members: Mapping[str, Raw]) -> str:
    """Returns the server's id of a task. Raises UpstreamFault."""
    return str(decode_checked(members.get("taskId", Raw(b"null")), _decode_text))


def _extensions_with_tasks(message: ClientMessage) -> dict[str, Any]:
    extensions = message.capabilities.get("extensions")
    return {"extensions": {**(extensions if isinstance(extensions, dict) else {}), **TASKS_CAPABILITY["extensions"]}}
