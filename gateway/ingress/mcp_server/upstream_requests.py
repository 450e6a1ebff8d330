"""Requests that are for one server: found, ruled on and sent under the server's own names, and what comes back under ours."""

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
    META,
    VERSION_KEY,
    HeadersDiffer,
    McpAnswer,
    McpRefused,
    McpRequest,
)
from adapters.mcp_client.wire.param_headers import headers_for
from adapters.mcp_client.wire.peer import Peer
from gateway.calls.broker import Broker, ServerCall
from gateway.ingress.http.errors import UnknownPrompt, UnknownResource, UnknownTool
from gateway.ingress.mcp_server.agent_calls import Agents
from gateway.ingress.mcp_server.catalogue.hidden import Hiding, hides
from gateway.ingress.mcp_server.catalogue.prompts import Prompts
from gateway.ingress.mcp_server.catalogue.resources import Resources
from gateway.ingress.mcp_server.catalogue.search_mode import CALL, SEARCH, Searching
from gateway.ingress.mcp_server.catalogue.tools import AgentTool, ServerTool, Tools
from gateway.ingress.mcp_server.catalogue.uris import result_outward
from gateway.ingress.mcp_server.catalogue.visible import Offers, own_names
from gateway.ingress.mcp_server.elicitation.consent import asking
from gateway.ingress.mcp_server.elicitation.server_questions import check_askable, questions_in, state_in
from gateway.ingress.mcp_server.protocol.message import Asked
from gateway.ingress.mcp_server.protocol.mirrored_headers import check as check_mirrored
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope
from gateway.ingress.mcp_server.protocol.request_state import Seal, Sealed, binding
from gateway.ingress.mcp_server.protocol.sessions import holder
from gateway.ingress.mcp_server.tasks.server_tasks import MARK, RelayedTasks, waits_for
from policies.delegation.rulings import Act, calling, getting, reading
from policies.strict_json import LARGE, in_reader, off_loop
from registry.cards.card import Registration
from registry.virtual.tool_overrides import BadOverride, Override

APPROVAL = "dev.interlock/approval"  # in `_meta`: the approval that a client means, if not any that fits
CLIENT_KEY = META + "clientInfo"
NOT_OURS_TO_PASS_ON = frozenset(  # of `_meta`: the client's trace, which joins none of ours, what looks like a credential, and its name
    {"traceparent", "tracestate", "baggage", "authorization", "proxy-authorization", "cookie", "x-api-key", "dpop"}
    | {"interlock-delegation", "interlock-ticket", "interlock-client-assertion", CLIENT_KEY.lower()}
)
NOT_AN_OLDER_CLIENTS = NOT_OURS_TO_PASS_ON | {key.lower() for key in (VERSION_KEY, CAPABILITIES_KEY, LEVEL_KEY)}
STATE_SECONDS = 600.0  # for which a person may think about what a server asks
UNFINISHED = b'"input_required"'
HINT = b"input_required"  # without quotes, which stand everywhere and make looking for it slower
encode = msgspec.json.Encoder().encode
_raw = msgspec.json.Decoder(dict[str, Raw]).decode
_US = Raw(encode(CLIENT_INFO))

T = TypeVar("T")
Reply = tuple[ServerTool, McpAnswer]
Relist = Callable[[str, str], Awaitable[None]]


class Catalogue(Struct, frozen=True):
    """What there is for a caller."""

    offers: Offers
    tools: Tools
    prompts: Prompts
    resources: Resources
    searching: Searching


class Callees(Struct, frozen=True):
    """What a call may come to beside a tool: an agent, or a task of a server."""

    agents: Agents
    tasks: RelayedTasks


class Relay:
    """`peer` is None where a client wants nothing but the answer. `relist` looks at what a server of a tenant lists."""

    def __init__(self, broker: Broker, catalogue: Catalogue, callees: Callees, seal: Seal, relist: Relist) -> None:
        self._broker = broker
        self._catalogue = catalogue
        self._agents = callees.agents
        self._tasks = callees.tasks
        self._seal = seal
        self._relist = relist
        self.hiding = Hiding(catalogue, broker.unknown)

    @hides
    async def call(self, asked: Asked, peer: Peer | None) -> bytes:
        """tools/call."""
        params = asked.params if isinstance(asked.params, dict) else {}
        name, arguments = params.get("name"), params.get("arguments", {})
        if not isinstance(name, str) or not isinstance(arguments, dict) or not isinstance(params.get("_meta", {}), dict):
            raise BadEnvelope(INVALID_PARAMS, "params.name must be a string, params.arguments and params._meta objects")
        if self._catalogue.searching.applies(asked):
            if name == SEARCH:
                return await self._catalogue.searching.answer(asked, arguments)
            asked = self._catalogue.searching.meant(asked)
            name, arguments = asked.params["name"], asked.params["arguments"]
        target = self._catalogue.tools.resolve(asked.caller, asked.server, name)
        try:
            if asked.server:
                asked, arguments = _overridden(self._catalogue.tools.override(asked.caller, asked.server, target), asked, arguments)
            if isinstance(target, AgentTool):
                return await self._agents.call(asked, target, arguments, peer)
            target, answer = await self._reached(asked, target, arguments, peer)
        except ConsentNeeded as needed:
            return self._consent(asked, needed)
        if MARK in answer.result and (task := await self._tasks.taken(asked, target, answer)) is not None:
            return task
        return await off_loop(self._outward, answer.result, asked, target.server, answer.decision)

    async def _reached(self, asked: Asked, target: ServerTool, arguments: dict[str, Any], peer: Peer | None) -> Reply:
        """A server's answer to a call of its tool, under a span of its own where there is a tracer."""
        if self._broker.calls.tracer is None:
            return await self._answered(asked, target, arguments, peer)
        name = {"gen_ai.tool.name": target.tool}
        server = self._server(asked, target.server)
        return await _traced(self._broker, server, name, asked, lambda asked: self._answered(asked, target, arguments, peer))

    async def _answered(self, asked: Asked, target: ServerTool, arguments: dict[str, Any], peer: Peer | None) -> Reply:
        """The answer to a call of a tool, which is listed anew where the server finds fault with the call's headers."""
        given = (asked, target, arguments, peer)
        call = self._tool_call(*given) if len(asked.raw) <= LARGE else await in_reader(self._tool_call, *given)
        try:
            answer = await self._broker.reach(asked.caller, call)
        except HeadersDiffer:
            target = await _listed_anew(self._catalogue.tools, self._relist, asked, target)
            call = self._tool_call(asked, target, arguments, peer)
            answer = await self._broker.reach(asked.caller, call)
        if target.tasks and waits_for(asked, target):
            answer = await self._tasks.awaited(asked, target, call.request, answer)
        return target, answer

    @hides
    async def get_prompt(self, asked: Asked, peer: Peer | None) -> bytes:
        """prompts/get."""
        name, arguments = asked.text("name"), asked.object().get("arguments", {})
        if not isinstance(arguments, dict):
            raise BadEnvelope(INVALID_PARAMS, "params.arguments must be an object")
        found = self._catalogue.prompts.resolve(asked.caller, asked.server, name)
        act = getting(found.server, found.prompt)
        return await self._reach(asked, act, arguments, lambda asked: self._request(asked, found.prompt, {"name": found.prompt}, peer))

    @hides
    async def read(self, asked: Asked, peer: Peer | None) -> bytes:
        """resources/read."""
        found = self._catalogue.resources.resolve(asked.caller, asked.server, asked.text("uri"))
        own = {"uri": found.uri}
        try:
            return await self._reach(asked, reading(found.server), own, lambda asked: self._request(asked, found.uri, own, peer))
        except McpRefused as refused:
            if refused.data is None or "uri" not in refused.data:
                raise
            raise McpRefused(refused.code, refused.detail, {"uri": asked.params["uri"]}) from None  # by the name it was asked for

    @hides
    async def complete(self, asked: Asked, peer: Peer | None) -> bytes:
        """completion/complete, with the permission of the prompt or the resource that it completes."""
        act, own = _referred(self._catalogue, asked)
        return await self._reach(asked, act, None, lambda asked: self._request(asked, "", {"ref": own}, peer))

    def check(self, asked: Asked) -> None:
        """Whether what was begun may still be done, for a request that only goes on with it. Raises like an unknown name."""
        catalogue, caller = self._catalogue, asked.caller
        if asked.method == "tools/call" and catalogue.searching.applies(asked):
            asked = catalogue.searching.meant(asked)
        params = asked.object()
        if asked.method == "tools/call":
            target = catalogue.tools.resolve(caller, asked.server, str(params.get("name")))
            if isinstance(target, ServerTool) and not self._may(asked, calling(target.server, target.tool)):
                raise UnknownTool
        elif asked.method == "prompts/get":
            prompt = catalogue.prompts.resolve(caller, asked.server, str(params.get("name")))
            if not self._may(asked, getting(prompt.server, prompt.prompt)):
                raise UnknownPrompt
        else:
            resource = catalogue.resources.resolve(caller, asked.server, str(params.get("uri")))
            if not self._may(asked, reading(resource.server)):
                raise UnknownResource

    def bound(self, asked: Asked) -> bytes:
        """What a requestState of this request is good for: for that of call_tool, the call that it stands for."""
        searching = self._catalogue.searching
        if asked.method == "tools/call" and not asked.found and asked.object().get("name") == CALL and searching.applies(asked):
            asked = searching.meant(asked)
        return binding(holder(asked.caller), asked.resource, asked.method, asked.shown or asked.object())

    def _may(self, asked: Asked, act: Act) -> bool:
        return self._catalogue.offers.may(asked.caller, self._server(asked, act.parent), act)

    def _server(self, asked: Asked, name: str) -> Registration:
        return self._catalogue.offers.server(asked.caller, name)

    async def _reach(self, asked: Asked, act: Act, arguments: Mapping[str, Any] | None, build: Callable[[Asked], McpRequest]) -> bytes:
        """A server's answer to a request that `build` makes of `asked`, under a span of its own where there is a tracer."""

        async def send(asked: Asked) -> McpAnswer:
            return await self._broker.reach(asked.caller, self._server_call(asked, act, arguments, build(asked)))

        name = {"gen_ai.prompt.name": act.resource.removeprefix(f"{act.parent}.")} if act.kind == "Prompt" else {}
        try:
            untraced = self._broker.calls.tracer is None
            answer = await (send(asked) if untraced else _traced(self._broker, self._server(asked, act.parent), name, asked, send))
        except ConsentNeeded as needed:
            return self._consent(asked, needed)
        return await off_loop(self._outward, answer.result, asked, act.parent, answer.decision)

    def _server_call(self, asked: Asked, act: Act, arguments: Mapping[str, Any] | None, request: McpRequest) -> ServerCall:
        begun = ""
        if asked.modern and "requestState" in asked.params:
            begun = self._seal.open(asked.params["requestState"], self.bound(asked)).begun
        return ServerCall(act.parent, act, arguments, request, asked.trail, _approval(asked), begun)

    def _consent(self, asked: Asked, needed: ConsentNeeded) -> bytes:
        state = self._seal.close(Sealed(self._seal.until(STATE_SECONDS)), self.bound(asked)) if asked.modern else ""
        return asking(asked, needed, state)

    def _tool_call(self, asked: Asked, target: ServerTool, arguments: dict[str, Any], peer: Peer | None) -> ServerCall:
        request = self._tool_request(asked, target, arguments, peer)
        if not asked.modern and "task" in asked.params:
            request = self._tasks.declaring(asked, target.server, request)
        elif target.tasks:
            request = self._tasks.augmented(asked, target, request)
        return self._server_call(asked, calling(target.server, target.tool), arguments, request)

    def _tool_request(self, asked: Asked, target: ServerTool, arguments: dict[str, Any], peer: Peer | None) -> McpRequest:
        if not target.marks:
            return self._request(asked, target.tool, {"name": target.tool}, peer)
        if asked.modern and not asked.found:
            check_mirrored(asked.scope, target.marks, arguments)
        return self._request(asked, target.tool, {"name": target.tool}, peer, headers_for(target.marks, arguments))

    def _request(
        self, asked: Asked, name: str, own: dict[str, Any], peer: Peer | None, headers: Mapping[str, str] | None = None
    ) -> McpRequest:
        """The request under the server's own names and with our trace context; all else as the client wrote it. Raises BadEnvelope."""
        members = _raw(asked.raw)
        given = _raw(members["params"])
        meta = _raw(given["_meta"]) if "_meta" in given else {}
        kept = passed_on(meta, asked.modern)
        if "requestState" in given and asked.modern:
            state = self._seal.open(asked.params["requestState"], self.bound(asked))
            if state.upstream is not None:
                own = {**own, "requestState": state.upstream}
            else:  # where it was the gateway that asked, the server knows nothing of the answers
                dropped = ("requestState",) if state.begun else ("requestState", "inputResponses")
                given = {name: value for name, value in given.items() if name not in dropped}
        params = encode({**given, **own, "_meta": {**kept, **asked.trail.headers}})
        raw = encode({**members, "params": Raw(params)})
        headers, session = headers or {}, asked.session
        if session is None:
            return McpRequest(asked.id, name, raw, params, asked.modern, asked.method, headers, peer)
        return McpRequest(asked.id, name, raw, params, False, asked.method, headers, peer, session.id, session.level)

    def _outward(self, result: bytes, asked: Asked, server: str, decision: str) -> bytes:
        result = result if own_names(asked.server) else result_outward(server, result)
        return self._unfinished(asked, result, decision) if asked.modern and HINT in result else result

    def _unfinished(self, asked: Asked, result: bytes, begun: str) -> bytes:
        """A result that asks: only for what the client declared, and with the server's state in ours. Raises BadEnvelope, UpstreamFault.

        `begun`: the decision that used an approval or was counted, which the answers may go on with.
        """
        members: dict[str, Any] = dict(_raw(result))
        if bytes(members.get("resultType", b"")) != UNFINISHED:
            return result
        check_askable(asked.capabilities, questions_in(members))
        state = state_in(members)
        if state is not None or begun:
            sealed = Sealed(self._seal.until(STATE_SECONDS), state, begun=begun)
            members["requestState"] = self._seal.close(sealed, self.bound(asked))
        return encode(members)


async def _traced(broker: Broker, target: Registration, name: Mapping[str, str], asked: Asked, send: Callable[[Asked], Awaitable[T]]) -> T:
    """What `send` returns, which is given the request in a span of its own."""
    with broker.calls.request_span(asked.trail, asked.method, target, name) as trail:
        return await send(structs.replace(asked, trail=trail))


async def _listed_anew(tools: Tools, relist: Relist, asked: Asked, target: ServerTool) -> ServerTool:
    """The tool as its server lists it now (2026-07-28, on -32020). Raises UnknownTool where it changed, until it is approved."""
    await relist(asked.caller.principal.tenant, target.server)
    found = tools.resolve(asked.caller, asked.server, str(asked.params["name"]))
    if not isinstance(found, ServerTool):
        raise UnknownTool
    return found


def _referred(catalogue: Catalogue, asked: Asked) -> tuple[Act, dict[str, Any]]:
    """What a completion is of, and its reference as the server knows it. Raises BadEnvelope, and as an unknown name."""
    ref = asked.object().get("ref")
    if isinstance(ref, dict) and ref.get("type") == "ref/prompt" and isinstance(ref.get("name"), str):
        prompt = catalogue.prompts.resolve(asked.caller, asked.server, ref["name"])
        return getting(prompt.server, prompt.prompt), {**ref, "name": prompt.prompt}
    if isinstance(ref, dict) and ref.get("type") == "ref/resource" and isinstance(ref.get("uri"), str):
        resource = catalogue.resources.resolve(asked.caller, asked.server, ref["uri"])
        return reading(resource.server), {**ref, "uri": resource.uri}
    raise BadEnvelope(INVALID_PARAMS, "params.ref must be a ref/prompt with a name, or a ref/resource with a uri")


def _overridden(override: Override | None, asked: Asked, arguments: dict[str, Any]) -> tuple[Asked, dict[str, Any]]:
    """The call as the server is to get it, where a virtual server shows the tool otherwise. Raises BadEnvelope."""
    if override is None or not override.arguments:
        return asked, arguments
    try:
        sent = override.arguments_of(arguments)
    except BadOverride as error:
        raise BadEnvelope(INVALID_PARAMS, str(error)) from None
    params = {**asked.params, "arguments": sent}
    raw = encode({**_raw(asked.raw), "params": params})
    return structs.replace(asked, params=params, raw=raw, found=True, shown=asked.params), sent


def passed_on(meta: Mapping[str, Raw], modern: bool) -> dict[str, Raw]:
    """What of a client's `_meta` a server gets. Its client is the gateway, which says so, whoever is behind it."""
    if not modern:
        return {key: value for key, value in meta.items() if key.lower() not in NOT_AN_OLDER_CLIENTS}
    kept = {key: value for key, value in meta.items() if key.lower() not in NOT_OURS_TO_PASS_ON}
    kept[CLIENT_KEY] = _US
    return kept


def _approval(asked: Asked) -> str:
    meta = asked.params.get("_meta") if isinstance(asked.params, dict) else None
    named = meta.get(APPROVAL) if isinstance(meta, dict) else None
    return named if isinstance(named, str) else ""
