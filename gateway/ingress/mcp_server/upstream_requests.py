"""Requests for one MCP server: resolves the target, sends the request under the server's names, rewrites the result to the gateway's."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

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
from gateway.calls.server_calls import ServerCalls, ToolServerRequest
from gateway.ingress.http.errors import UnknownTool
from gateway.ingress.mcp_server.agent_tool_calls import AgentToolCalls
from gateway.ingress.mcp_server.catalogue.hidden import REFUSALS, Catalogue, VisibilityCheck
from gateway.ingress.mcp_server.catalogue.search_mode import SEARCH_TOOL
from gateway.ingress.mcp_server.catalogue.tools import AgentTool, ServerTool, ToolCatalogue
from gateway.ingress.mcp_server.catalogue.uris import rewrite_result
from gateway.ingress.mcp_server.catalogue.visible import uses_own_names
from gateway.ingress.mcp_server.elicitation.request_states import UNFINISHED_HINT, RequestStates
from gateway.ingress.mcp_server.protocol.message import ClientMessage
from gateway.ingress.mcp_server.protocol.mirrored_headers import check_mirrored_headers as check_mirrored
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.request_state import RequestStateCipher
from gateway.ingress.mcp_server.tasks.server_tasks import TASK_HINT, RelayedTasks, must_wait_for_task
from policies.delegation.rulings import Act, act_of_getting_prompt, act_of_reading_resource
from policies.strict_json import LARGE, run_in_reader, run_off_loop
from registry.virtual.tool_overrides import BadOverride, ToolOverride

APPROVAL_KEY = "dev.interlock/approval"  # in `_meta`: the approval that the request uses; without it any matching one
CLIENT_INFO_KEY = META_PREFIX + "clientInfo"
NOT_FORWARDED = frozenset(  # in `_meta`: the client's trace context and name, which the gateway replaces, and credentials
    {"traceparent", "tracestate", "baggage", "authorization", "proxy-authorization", "cookie", "x-api-key", "dpop"}
    | {"interlock-delegation", "interlock-ticket", "interlock-client-assertion", CLIENT_INFO_KEY.lower()}
)
NO_HEADERS: Mapping[str, str] = {}
NOT_FORWARDED_FROM_LEGACY = NOT_FORWARDED | {key.lower() for key in (VERSION_KEY, CAPABILITIES_KEY, LEVEL_KEY)}
encode = msgspec.json.Encoder().encode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_GATEWAY_CLIENT_INFO = Raw(encode(CLIENT_INFO))

Relist = Callable[[str, str], Awaitable[None]]


class CallTargets(Struct, frozen=True):
    """The other targets of `tools/call`: agents, and tasks of servers."""

    agents: AgentToolCalls
    tasks: RelayedTasks


class ServerObject(Struct, frozen=True):
    """A prompt, a resource or a reference that a request names, under its server's own names.

    `members` replace the client's parameters, and policies read `arguments`. `span_name` is the attribute that the span's title ends with.
    """

    act: Act
    name: str
    members: dict[str, Any]
    arguments: Mapping[str, Any] | None
    span_name: Mapping[str, str] = {}


class UpstreamRequests:
    """Serves requests for one upstream. `peer` is None for a client that wants only the result. `relist` lists a server again."""

    def __init__(
        self, server_calls: ServerCalls, catalogue: Catalogue, targets: CallTargets, state_cipher: RequestStateCipher, relist: Relist
    ) -> None:
        self._server_calls = server_calls
        self.catalogue = catalogue
        self._agents = targets.agents
        self._tasks = targets.tasks
        self.states = RequestStates(state_cipher, catalogue.search_mode)
        self._relist = relist
        self._visibility_check = VisibilityCheck(catalogue, server_calls.unknown_name_denials)

    async def call_tool(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Serves tools/call."""
        try:
            return await self._call_tool(message, peer)
        except REFUSALS as error:
            await self._visibility_check.raise_if_hidden(message, error)
            raise

    async def get_prompt(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Serves prompts/get."""
        try:
            name, arguments = message.string_param("name"), message.params_object().get("arguments", {})
            if not isinstance(arguments, dict):
                raise BadEnvelope(INVALID_PARAMS, "params.arguments must be an object")
            found = self.catalogue.prompts.resolve(message.caller, message.server_path, name)
            act = act_of_getting_prompt(found.server, found.prompt)
            target = ServerObject(act, found.prompt, {"name": found.prompt}, arguments, {"gen_ai.prompt.name": found.prompt})
            return await self._call_server(message, target, peer)
        except REFUSALS as error:
            await self._visibility_check.raise_if_hidden(message, error)
            raise

    async def read_resource(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Serves resources/read."""
        try:
            found = self.catalogue.resources.resolve(message.caller, message.server_path, message.string_param("uri"))
            own = {"uri": found.uri}
            return await self._call_server(message, ServerObject(act_of_reading_resource(found.server), found.uri, own, own), peer)
        except McpRefused as refused:
            if not isinstance(refused.data, dict) or "uri" not in refused.data:
                raise
            raise McpRefused(refused.code, refused.detail, {"uri": message.params["uri"]}) from None  # by the URI that the client requested
        except REFUSALS as error:
            await self._visibility_check.raise_if_hidden(message, error)
            raise

    async def complete(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        """Serves completion/complete, with the permission of the completed prompt or resource."""
        try:
            act, own = _resolve_reference(self.catalogue, message)
            name = {"gen_ai.prompt.name": act.resource.removeprefix(f"{act.parent}.")} if act.kind == "Prompt" else {}
            return await self._call_server(message, ServerObject(act, "", {"ref": own}, None, name), peer)
        except REFUSALS as error:
            await self._visibility_check.raise_if_hidden(message, error)
            raise

    async def _call_tool(self, message: ClientMessage, peer: McpPeer | None) -> bytes:
        params = message.params if isinstance(message.params, dict) else {}
        name, arguments = params.get("name"), params.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict) or not isinstance(params.get("_meta", {}), dict):
            raise BadEnvelope(INVALID_PARAMS, "params.name must be a string, params.arguments and params._meta objects")
        if message.may_be_in_search_mode and self.catalogue.search_mode.is_on(message):
            if name == SEARCH_TOOL:
                return await self.catalogue.search_mode.search(message, arguments)
            message = self.catalogue.search_mode.resolve_call_tool(message)
            name, arguments = message.params["name"], message.params["arguments"]
        target = self.catalogue.tools.resolve(message.caller, message.server_path, name)
        try:
            if message.server_path:
                message, arguments = _apply_override(
                    self.catalogue.tools.override_for(message.caller, message.server_path, target), message, arguments
                )
            if isinstance(target, AgentTool):
                return await self._agents.call(message, target, arguments, peer)
            with self._request_span(message, target.server, {"gen_ai.tool.name": target.tool}) as traced:
                target, answer = await self._call_and_relist_once(traced, target, arguments, peer)
        except ConsentNeeded as needed:
            return self.states.request_consent(message, needed)
        if TASK_HINT in answer.result and (task := await self._tasks.store_new_task(message, target, answer)) is not None:
            return task
        if len(answer.result) > LARGE:
            return await run_in_reader(self._rewrite_result, answer.result, message, target.server, answer.decision_id)
        return self._rewrite_result(answer.result, message, target.server, answer.decision_id)

    async def _call_and_relist_once(
        self, message: ClientMessage, target: ServerTool, arguments: dict[str, Any], peer: McpPeer | None
    ) -> tuple[ServerTool, McpAnswer]:
        """Calls a server's tool and returns the answer, with the tool as it is listed now.

        If the server rejects the call's headers, it has done nothing (2026-07-28, -32020): the tool is listed again and called once more,
        under another decision.
        """
        build = self._build_tool_server_request
        is_small = len(message.raw) <= LARGE
        tool_request = build(message, target, arguments, peer) if is_small else await run_in_reader(build, message, target, arguments, peer)
        try:
            answer = await self._server_calls.call(message.caller, tool_request)
        except HeadersDiffer:
            target = await _relist_tool(self.catalogue.tools, self._relist, message, target)
            tool_request = build(message, target, arguments, peer)
            answer = await self._server_calls.call(message.caller, tool_request)
        if target.task_support and must_wait_for_task(message, target):
            answer = await self._tasks.wait_for_task(message, target, tool_request.mcp_request, answer)
        return target, answer

    async def _call_server(self, message: ClientMessage, target: ServerObject, peer: McpPeer | None) -> bytes:
        """Sends a request about a prompt or a resource to its server, and returns the result."""
        server = target.act.parent
        try:
            with self._request_span(message, server, target.span_name) as traced:
                mcp_request = self._build_mcp_request(traced, target.name, target.members, peer)
                answer = await self._server_calls.call(
                    message.caller, self._build_request(traced, target.act, target.arguments, mcp_request)
                )
        except ConsentNeeded as needed:
            return self.states.request_consent(message, needed)
        return await run_off_loop(self._rewrite_result, answer.result, message, server, answer.decision_id)

    def _request_span(self, message: ClientMessage, server: str, name: Mapping[str, str]) -> AbstractContextManager[ClientMessage]:
        """Returns the span of a request to a server, which yields the message in it. Without a tracer, the message is unchanged."""
        return nullcontext(message) if self._server_calls.telemetry.tracer is None else self._trace_request(message, server, name)

    @contextmanager
    def _trace_request(self, message: ClientMessage, server: str, name: Mapping[str, str]) -> Iterator[ClientMessage]:
        target = self.catalogue.visible_entries.find_server(message.caller, server)
        with self._server_calls.telemetry.request_span(message.trace_context, message.method, target, name) as trace_context:
            yield structs.replace(message, trace_context=trace_context)

    def _build_request(
        self, message: ClientMessage, act: Act, arguments: Mapping[str, Any] | None, mcp_request: McpRequest
    ) -> ToolServerRequest:
        continues_decision_id = ""
        if message.is_modern and "requestState" in message.params:
            continues_decision_id = self.states.decrypt(message).continues_decision_id
        return ToolServerRequest(
            act.parent, act, arguments, mcp_request, message.trace_context, _approval_id_of(message), continues_decision_id
        )

    def _build_tool_server_request(
        self, message: ClientMessage, target: ServerTool, arguments: dict[str, Any], peer: McpPeer | None
    ) -> ToolServerRequest:
        headers = NO_HEADERS
        if target.mirrored_params:
            if message.is_modern and not message.is_rewritten:
                check_mirrored(message.scope, target.mirrored_params, arguments)
            headers = headers_for(target.mirrored_params, arguments)
        mcp_request = self._build_mcp_request(message, target.tool, {"name": target.tool}, peer, headers)
        if not message.is_modern and "task" in message.params:
            mcp_request = self._tasks.declare_tasks(message, target.server, mcp_request)
        elif target.task_support:
            mcp_request = self._tasks.as_task_call(message, target, mcp_request)
        return self._build_request(message, target.act, arguments, mcp_request)

    def _build_mcp_request(
        self, message: ClientMessage, name: str, own_members: dict[str, Any], peer: McpPeer | None, headers: Mapping[str, str] = NO_HEADERS
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
                dropped = ("requestState",) if state.continues_decision_id else ("requestState", "inputResponses")
                client_params = {name: value for name, value in client_params.items() if name not in dropped}
        params = encode({**client_params, **own_members, "_meta": {**forwarded, **message.trace_context.headers}})
        raw = encode({**members, "params": Raw(params)}) if message.is_modern else b""
        session = message.session
        if session is None:
            return McpRequest(message.id, name, raw, params, message.is_modern, message.method, headers, peer)
        return McpRequest(message.id, name, raw, params, False, message.method, headers, peer, session.id, session.level)

    def _rewrite_result(self, result: bytes, message: ClientMessage, server: str, decision_id: str) -> bytes:
        result = result if uses_own_names(message.server_path) else rewrite_result(server, result)
        if not message.is_modern or UNFINISHED_HINT not in result:
            return result
        return self.states.seal_into_result(message, result, decision_id)


async def _relist_tool(tools: ToolCatalogue, relist: Relist, message: ClientMessage, target: ServerTool) -> ServerTool:
    """Returns the tool as its server lists it now. Raises UnknownTool for a change that awaits approval."""
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
