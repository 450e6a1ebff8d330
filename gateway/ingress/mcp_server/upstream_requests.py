"""Requests for one MCP server: resolves the target, sends the request under the server's names, rewrites the result to the gateway's."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct, structs

from adapters.contract import ConsentNeeded
from adapters.mcp_client.wire.messages import (
    CAPABILITIES_KEY,
    CLIENT_INFO,
    INVALID_PARAMS,
    LEVEL_KEY,
    META_PREFIX,
    VERSION_KEY,
    HeadersDiffer,
    McpAnswer,
    McpRefused,
    McpRequest,
)
from adapters.mcp_client.wire.param_headers import headers_for
from adapters.mcp_client.wire.peer import McpPeer
from gateway.calls.requests import ToolServerRequest
from gateway.calls.server_calls import ServerCalls
from gateway.ingress.http.errors import UnknownPrompt, UnknownResource, UnknownTool
from gateway.ingress.mcp_server.agent_tool_calls import AgentToolCalls
from gateway.ingress.mcp_server.catalogue.hidden import Catalogue, VisibilityCheck, hide_invisible
from gateway.ingress.mcp_server.catalogue.search_mode import SEARCH_TOOL
from gateway.ingress.mcp_server.catalogue.tools import AgentTool, ServerTool, ToolCatalogue
from gateway.ingress.mcp_server.catalogue.uris import rewrite_result
from gateway.ingress.mcp_server.catalogue.visible import uses_own_names
from gateway.ingress.mcp_server.elicitation.request_states import RequestStates
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.protocol.mirrored_headers import check_mirrored_headers as check_mirrored
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.request_state import RequestStateCipher
from gateway.ingress.mcp_server.tasks.server_tasks import TASK_HINT, RelayedTasks, must_wait_for_task
from gateway.telemetry.upstream_calls import CallTelemetry
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_getting_prompt, act_of_reading_resource
from policies.strict_json import LARGE, run_in_reader, run_off_loop
from registry.cards.card import Registration
from registry.virtual.tool_overrides import BadOverride, ToolOverride

APPROVAL_KEY = "dev.interlock/approval"  # in `_meta`: the approval that the request uses; without it any matching one
CLIENT_INFO_KEY = META_PREFIX + "clientInfo"
NOT_FORWARDED = frozenset(  # in `_meta`: the client's trace context and name, which the gateway replaces, and credentials
    {"traceparent", "tracestate", "baggage", "authorization", "proxy-authorization", "cookie", "x-api-key", "dpop"}
    | {"interlock-delegation", "interlock-ticket", "interlock-client-assertion", CLIENT_INFO_KEY.lower()}
)
NOT_FORWARDED_FROM_LEGACY = NOT_FORWARDED | {key.lower() for key in (VERSION_KEY, CAPABILITIES_KEY, LEVEL_KEY)}
encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_GATEWAY_CLIENT_INFO = Raw(encode(CLIENT_INFO))

T = TypeVar("T")
Reply = tuple[ServerTool, McpAnswer]
Relist = Callable[[str, str], Awaitable[None]]


class CallTargets(Struct, frozen=True):
    """The other targets of `tools/call`: agents, and tasks of servers."""

    agents: AgentToolCalls
    tasks: RelayedTasks


class UpstreamRequests:
    """Serves requests for one upstream. `peer` is None for a client that wants only the result. `relist` lists a server again."""

    def __init__(
        self, server_calls: ServerCalls, catalogue: Catalogue, targets: CallTargets, state_cipher: RequestStateCipher, relist: Relist
    ) -> None:
        self._server_calls = server_calls
        self._catalogue = catalogue
        self._agents = targets.agents
        self._tasks = targets.tasks
        self.states = RequestStates(state_cipher, catalogue.search_mode)
        self._relist = relist
        self.visibility_check = VisibilityCheck(catalogue, server_calls.unknown_name_denials)

    @hide_invisible
    async def call_tool(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Serves tools/call."""
        params = message.params if isinstance(message.params, dict) else {}
        name, arguments = params.get("name"), params.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict) or not isinstance(params.get("_meta", {}), dict):
            raise BadEnvelope(INVALID_PARAMS, "params.name must be a string, params.arguments and params._meta objects")
        if self._catalogue.search_mode.is_on(message):
            if name == SEARCH_TOOL:
                return await self._catalogue.search_mode.search(message, arguments)
            message = self._catalogue.search_mode.resolve_call_tool(message)
            name, arguments = message.params["name"], message.params["arguments"]
        target = self._catalogue.tools.resolve(message.caller, message.server_path, name)
        try:
            if message.server_path:
                message, arguments = _apply_override(
                    self._catalogue.tools.override_for(message.caller, message.server_path, target), message, arguments
                )
            if isinstance(target, AgentTool):
                return await self._agents.call(message, target, arguments, peer)
            target, answer = await self._call_server_tool(message, target, arguments, peer)
        except ConsentNeeded as needed:
            return self.states.request_consent(message, needed)
        if TASK_HINT in answer.result and (task := await self._tasks.store_new_task(message, target, answer)) is not None:
            return task
        return await run_off_loop(self._rewrite_result, answer.result, message, target.server, answer.decision_id)

    async def _call_server_tool(self, message: ClientMessage, target: ServerTool, arguments: dict[str, Any], peer: McpPeer | None) -> Reply:
        """Calls a server's tool, within a span if there is a tracer, and returns the answer."""
        if self._server_calls.telemetry.tracer is None:
            return await self._answered(message, target, arguments, peer)
        name = {"gen_ai.tool.name": target.tool}
        server = self._server(message, target.server)
        return await _traced(
            self._server_calls.telemetry, server, name, message, lambda traced: self._answered(traced, target, arguments, peer)
        )

    async def _answered(self, message: ClientMessage, target: ServerTool, arguments: dict[str, Any], peer: McpPeer | None) -> Reply:
        """Calls a server's tool and returns the answer. If the server rejects the call's headers, lists the tool again and retries once."""
        call_parts = (message, target, arguments, peer)
        call = self._build_tool_call(*call_parts) if len(message.raw) <= LARGE else await run_in_reader(self._build_tool_call, *call_parts)
        try:
            answer = await self._server_calls.call(message.caller, call)
        except HeadersDiffer:
            target = await _listed_anew(self._catalogue.tools, self._relist, message, target)
            call = self._build_tool_call(message, target, arguments, peer)
            answer = await self._server_calls.call(message.caller, call)
        if target.task_support and must_wait_for_task(message, target):
            answer = await self._tasks.wait_for_task(message, target, call.request, answer)
        return target, answer

    @hide_invisible
    async def get_prompt(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Serves prompts/get."""
        name, arguments = message.string_param("name"), message.params_object().get("arguments", {})
        if not isinstance(arguments, dict):
            raise BadEnvelope(INVALID_PARAMS, "params.arguments must be an object")
        found = self._catalogue.prompts.resolve(message.caller, message.server_path, name)
        act = act_of_getting_prompt(found.server, found.prompt)
        return await self._call_server(
            message, act, arguments, lambda traced: self._build_request(traced, found.prompt, {"name": found.prompt}, peer)
        )

    @hide_invisible
    async def read_resource(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Serves resources/read."""
        found = self._catalogue.resources.resolve(message.caller, message.server_path, message.string_param("uri"))
        own = {"uri": found.uri}
        try:
            return await self._call_server(
                message, act_of_reading_resource(found.server), own, lambda traced: self._build_request(traced, found.uri, own, peer)
            )
        except McpRefused as refused:
            if not isinstance(refused.data, dict) or "uri" not in refused.data:
                raise
            raise McpRefused(refused.code, refused.detail, {"uri": message.params["uri"]}) from None  # by the URI that the client requested

    @hide_invisible
    async def complete(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Serves completion/complete, with the permission of the completed prompt or resource."""
        act, own = _resolve_reference(self._catalogue, message)
        return await self._call_server(message, act, None, lambda traced: self._build_request(traced, "", {"ref": own}, peer))

    def check_still_allowed(self, message: ClientMessage) -> None:
        """Checks that a request which continues an earlier one is still allowed. Raises UnknownTool, UnknownPrompt or UnknownResource."""
        catalogue, caller = self._catalogue, message.caller
        if message.method == "tools/call" and catalogue.search_mode.is_on(message):
            message = catalogue.search_mode.resolve_call_tool(message)
        params = message.params_object()
        if message.method == "tools/call":
            target = catalogue.tools.resolve(caller, message.server_path, str(params.get("name")))
            if isinstance(target, ServerTool) and not self._could_allow(message, act_of_calling_tool(target.server, target.tool)):
                raise UnknownTool
        elif message.method == "prompts/get":
            prompt = catalogue.prompts.resolve(caller, message.server_path, str(params.get("name")))
            if not self._could_allow(message, act_of_getting_prompt(prompt.server, prompt.prompt)):
                raise UnknownPrompt
        else:
            resource = catalogue.resources.resolve(caller, message.server_path, str(params.get("uri")))
            if not self._could_allow(message, act_of_reading_resource(resource.server)):
                raise UnknownResource

    def _could_allow(self, message: ClientMessage, act: Act) -> bool:
        return self._catalogue.visible_entries.could_allow(message.caller, self._server(message, act.parent), act)

    def _server(self, message: ClientMessage, name: str) -> Registration:
        return self._catalogue.visible_entries.find_server(message.caller, name)

    async def _call_server(
        self, message: ClientMessage, act: Act, arguments: Mapping[str, Any] | None, build: Callable[[ClientMessage], McpRequest]
    ) -> bytes:
        """Sends the request that `build` makes of the client's message, within a span if there is a tracer, and returns the result."""

        async def send(traced: ClientMessage) -> McpAnswer:
            return await self._server_calls.call(traced.caller, self._build_server_call(traced, act, arguments, build(traced)))

        name = {"gen_ai.prompt.name": act.resource.removeprefix(f"{act.parent}.")} if act.kind == "Prompt" else {}
        try:
            if self._server_calls.telemetry.tracer is None:
                answer = await send(message)
            else:
                answer = await _traced(self._server_calls.telemetry, self._server(message, act.parent), name, message, send)
        except ConsentNeeded as needed:
            return self.states.request_consent(message, needed)
        return await run_off_loop(self._rewrite_result, answer.result, message, act.parent, answer.decision_id)

    def _build_server_call(
        self, message: ClientMessage, act: Act, arguments: Mapping[str, Any] | None, request: McpRequest
    ) -> ToolServerRequest:
        continued_decision_id = ""
        if message.is_modern and "requestState" in message.params:
            continued_decision_id = self.states.decrypt(message).begun
        return ToolServerRequest(
            act.parent, act, arguments, request, message.trace_context, _approval_id_of(message), continued_decision_id
        )

    def _build_tool_call(
        self, message: ClientMessage, target: ServerTool, arguments: dict[str, Any], peer: McpPeer | None
    ) -> ToolServerRequest:
        request = self._build_tool_request(message, target, arguments, peer)
        if not message.is_modern and "task" in message.params:
            request = self._tasks.declare_tasks(message, target.server, request)
        elif target.task_support:
            request = self._tasks.as_task_call(message, target, request)
        return self._build_server_call(message, act_of_calling_tool(target.server, target.tool), arguments, request)

    def _build_tool_request(
        self, message: ClientMessage, target: ServerTool, arguments: dict[str, Any], peer: McpPeer | None
    ) -> McpRequest:
        if not target.mirrored_params:
            return self._build_request(message, target.tool, {"name": target.tool}, peer)
        if message.is_modern and not message.is_rewritten:
            check_mirrored(message.scope, target.mirrored_params, arguments)
        return self._build_request(message, target.tool, {"name": target.tool}, peer, headers_for(target.mirrored_params, arguments))

    def _build_request(
        self, message: ClientMessage, name: str, own_members: dict[str, Any], peer: McpPeer | None, headers: Mapping[str, str] | None = None
    ) -> McpRequest:
        """Builds the server's request: its own names, the gateway's trace context, other members from the client. Raises BadEnvelope."""
        members = _decode_members(message.raw)
        client_params = _decode_members(members["params"])
        meta = _decode_members(client_params["_meta"]) if "_meta" in client_params else {}
        forwarded = forwarded_meta(meta, message.is_modern)
        if "requestState" in client_params and message.is_modern:
            state = self.states.decrypt(message)
            if state.upstream is not None:
                own_members = {**own_members, "requestState": state.upstream}
            else:  # the gateway asked, so the answers are not for the server
                dropped = ("requestState",) if state.begun else ("requestState", "inputResponses")
                client_params = {name: value for name, value in client_params.items() if name not in dropped}
        params = encode({**client_params, **own_members, "_meta": {**forwarded, **message.trace_context.headers}})
        raw = encode({**members, "params": Raw(params)})
        headers, session = headers or {}, message.session
        if session is None:
            return McpRequest(message.id, name, raw, params, message.is_modern, message.method, headers, peer)
        return McpRequest(message.id, name, raw, params, False, message.method, headers, peer, session.id, session.level)

    def _rewrite_result(self, result: bytes, message: ClientMessage, server: str, decision_id: str) -> bytes:
        result = result if uses_own_names(message.server_path) else rewrite_result(server, result)
        return self.states.seal_into_result(message, result, decision_id)


async def _traced(
    telemetry: CallTelemetry,
    target: Registration,
    name: Mapping[str, str],
    message: ClientMessage,
    send: Callable[[ClientMessage], Awaitable[T]],
) -> T:
    """Calls `send` within a span of its own and returns the result."""
    with telemetry.request_span(message.trace_context, message.method, target, name) as trace_context:
        return await send(structs.replace(message, trace_context=trace_context))


async def _listed_anew(tools: ToolCatalogue, relist: Relist, message: ClientMessage, target: ServerTool) -> ServerTool:
    """Returns the tool as its server lists it now (2026-07-28, on -32020). Raises UnknownTool for a change that awaits approval."""
    await relist(message.caller.principal.tenant, target.server)
    found = tools.resolve(message.caller, message.server_path, str(message.params["name"]))
    if not isinstance(found, ServerTool):
        raise UnknownTool
    return found


def _resolve_reference(catalogue: Catalogue, message: ClientMessage) -> tuple[Act, dict[str, Any]]:
    """Returns the act that a completion belongs to, and its reference in the server's names.

    Raises BadEnvelope, UnknownPrompt and UnknownResource.
    """
    ref = message.params_object().get("ref")
    if isinstance(ref, dict) and ref.get("type") == "ref/prompt" and isinstance(ref.get("name"), str):
        prompt = catalogue.prompts.resolve(message.caller, message.server_path, ref["name"])
        return act_of_getting_prompt(prompt.server, prompt.prompt), {**ref, "name": prompt.prompt}
    if isinstance(ref, dict) and ref.get("type") == "ref/resource" and isinstance(ref.get("uri"), str):
        resource = catalogue.resources.resolve(message.caller, message.server_path, ref["uri"])
        return act_of_reading_resource(resource.server), {**ref, "uri": resource.uri}
    raise BadEnvelope(INVALID_PARAMS, "params.ref must be a ref/prompt with a name, or a ref/resource with a uri")


def _apply_override(
    override: ToolOverride | None, message: ClientMessage, arguments: dict[str, Any]
) -> tuple[ClientMessage, dict[str, Any]]:
    """Returns the call with the server's own arguments, if a virtual server overrides the tool. Raises BadEnvelope."""
    if override is None or not override.arguments:
        return message, arguments
    try:
        sent = override.to_server_arguments(arguments)
    except BadOverride as error:
        raise BadEnvelope(INVALID_PARAMS, str(error)) from None
    params = {**message.params, "arguments": sent}
    raw = encode({**_decode_members(message.raw), "params": params})
    return structs.replace(message, params=params, raw=raw, is_rewritten=True, original_params=message.params), sent


def forwarded_meta(meta: Mapping[str, Raw], is_modern: bool) -> dict[str, Raw]:
    """Returns the members of a client's `_meta` that a server receives. The gateway names itself as the client."""
    if not is_modern:
        return {key: value for key, value in meta.items() if key.lower() not in NOT_FORWARDED_FROM_LEGACY}
    forwarded = {key: value for key, value in meta.items() if key.lower() not in NOT_FORWARDED}
    forwarded[CLIENT_INFO_KEY] = _GATEWAY_CLIENT_INFO
    return forwarded


def _approval_id_of(message: ClientMessage) -> str:
    meta = message.params.get("_meta") if isinstance(message.params, dict) else None
    named = meta.get(APPROVAL_KEY) if isinstance(meta, dict) else None
    return named if isinstance(named, str) else ""
