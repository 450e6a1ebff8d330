"""An MCP server as an agent: a message names one of its tools, and the tool's result becomes the task's artifact."""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from msgspec import UNSET, Raw, structs

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.contract import (
    Adapter,
    ArtifactPiece,
    Ask,
    Call,
    CannotCancel,
    ConsentNeeded,
    Done,
    Event,
    Failed,
    Prompt,
    PromptKind,
    RefLearned,
    Turn,
    UpstreamFault,
    VendorRef,
)
from adapters.mcp_client.wire.eras import modern_params
from adapters.mcp_client.wire.messages import McpAnswer, McpRefused, McpRequest, encode, envelope_of
from adapters.mcp_client.wire.param_headers import find_header_arguments, headers_for
from adapters.mcp_client.wire.peer import PeerRefused
from adapters.task import Artifact, Message, Part, Role
from adapters.upstream.pending_consent import consent_question, pending_ref
from policies.strict_json import BadJson, parse

RESULT_ARTIFACT: Final = "result"
TOOL_FAILED_TEXT: Final = "The tool reported an error"
FORMAT_TEXT: Final = 'must be one data part {"tool": …, "arguments": {…}}, or one text `tool: name {json}`'
NAME_MAX: Final = 128  # characters of a tool's name
TOOL_CALL_KEY: Final = "tool_call"  # in the `extra` of a VendorRef: the call to be repeated with the answers
ELICITATION_METHOD: Final = "elicitation/create"
QUESTIONS_MAX: Final = 16  # questions at once
_decode_message: Final = msgspec.json.Decoder(Message).decode
_NAME_END: Final = re.compile(r"[\s{]")


class ToolCaller(Protocol):
    """Calls tools of servers (adapters/tool_servers.py)."""

    async def call(self, call: Call, request: McpRequest) -> McpAnswer: ...


class ToolInvocation(NamedTuple):
    """The tool that a message names, and its arguments."""

    tool: str
    arguments: Mapping[str, Any]


def read_invocation(message: Message) -> ToolInvocation:
    """Reads the message of a tool call. Raises BadMessage."""
    if len(message.parts) != 1:
        raise BadMessage("message.parts", FORMAT_TEXT)
    part = message.parts[0]
    if part.data is not UNSET:
        return _read_data_invocation(part.data)
    return _read_text_invocation(part.text if isinstance(part.text, str) else "")


def _read_text_invocation(text: str) -> ToolInvocation:
    """Reads `tool: name {json}`, where the object is optional. The name ends at the first white space or brace."""
    keyword, _, rest = text.strip().partition(":")
    rest = rest.lstrip()
    end = _NAME_END.search(rest)
    name = rest[: end.start()] if end else rest
    arguments_text = rest[len(name) :].lstrip()
    if keyword != "tool" or not 0 < len(name) <= NAME_MAX or not (arguments_text.startswith("{") or not arguments_text):
        raise BadMessage("message.parts[0]", FORMAT_TEXT)
    try:
        arguments = parse((arguments_text or "{}").encode())
    except BadJson:
        raise BadMessage("message.parts[0].text", "has arguments that are not JSON") from None
    return ToolInvocation(name, arguments)


def _read_data_invocation(data: Any) -> ToolInvocation:
    if not isinstance(data, dict) or data.keys() - {"tool", "arguments"}:
        raise BadMessage("message.parts[0].data", FORMAT_TEXT)
    tool, arguments = data.get("tool"), data.get("arguments", {})
    if not isinstance(tool, str) or not isinstance(arguments, dict):
        raise BadMessage("message.parts[0].data", FORMAT_TEXT)
    return ToolInvocation(tool, arguments)


class ToolAgent:
    """Calls a tool under the Grant for it and its arguments. Questions of a server of 2026-07-28 become prompts of the task."""

    def __init__(self, servers: ToolCaller) -> None:
        self._servers = servers

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """Yields one artifact or the server's questions, and the ending."""
        invocation = read_invocation(turn.message)
        if f"{call.target.name}.{invocation.tool}" != call.grant.decision.act.resource:
            raise BadMessage("message.parts", "names another tool than was allowed")
        try:
            for event in await self._call_tool(invocation, turn, call):
                yield event
        except ConsentNeeded as needed:
            yield pending_ref(structs.replace(turn, ref=None), call, needed)
            yield consent_question(needed)

    async def _call_tool(self, invocation: ToolInvocation, turn: Turn, call: Call) -> list[Event]:
        call_params = {"name": invocation.tool, "arguments": invocation.arguments, **_input_responses(turn)}
        params = encode(modern_params({**call_params, "_meta": {}}, _ELICITING_PEER))
        raw = envelope_of(call.idempotency_key, "tools/call", Raw(params))
        schema = next((tool.definition.get("inputSchema") for tool in call.target.tools if tool.name == invocation.tool), None)
        headers = headers_for(tuple(find_header_arguments(schema)), invocation.arguments)
        try:
            answer = await self._servers.call(call, McpRequest(call.idempotency_key, invocation.tool, raw, params, True, headers=headers))
        except McpRefused as refused:
            return [Failed(refused.public, rejected=refused.code == -32602, detail=refused.detail)]
        result = parse(answer.result)
        if result.get("resultType", "complete") == "input_required":
            return _question_events(turn.message, result)
        if result.get("resultType", "complete") != "complete":
            raise UpstreamFault("The server's answer is not a result", str(result["resultType"])[:100])
        parts = parts_from_result(result)
        if result.get("isError") is True:
            return [Failed(TOOL_FAILED_TEXT, message=Message(f"m-{call.idempotency_key}", Role.AGENT, parts))]
        return [ArtifactPiece(Artifact(RESULT_ARTIFACT, parts, name=invocation.tool)), Done()]

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        """True for a task that waits for an answer, which only the gateway knows. Raises CannotCancel for any other."""
        if TOOL_CALL_KEY in ref.extra:
            return True
        raise CannotCancel


class _ElicitingPeer:
    """The client capabilities sent to the server: the task can ask a person, after the response."""

    capabilities: Mapping[str, Any] = {"elicitation": {"form": {}, "url": {}}}

    async def notify(self, method: str, params: Raw) -> None:
        return None

    async def ask(self, method: str, params: Raw) -> Raw:
        raise PeerRefused(-32601, "Nothing can be asked before the answer")


_ELICITING_PEER: Final = _ElicitingPeer()


def message_awaiting_answer(ref: VendorRef) -> Message | None:
    """The message whose tool asked a question, for a task that waits for the answer; else None."""
    tool_call = ref.extra.get(TOOL_CALL_KEY)
    return _decode_message(tool_call["message"].encode()) if isinstance(tool_call, Mapping) else None


def _question_events(message: Message, result: Mapping[str, Any]) -> list[Event]:
    """The prompts of the server's questions, and the state to continue with. Raises UpstreamFault for any other request."""
    requests, state = result.get("inputRequests", {}), result.get("requestState")
    if not isinstance(requests, dict) or not 0 < len(requests) <= QUESTIONS_MAX or not isinstance(state, str | None):
        raise UpstreamFault("The server's message is not valid", "input requests")
    prompts = tuple(_prompt_from_request(key, request) for key, request in requests.items())
    tool_call = {"message": encode(message).decode()} | ({} if state is None else {"state": state})
    return [RefLearned(VendorRef(task_id=TOOL_CALL_KEY, extra={TOOL_CALL_KEY: tool_call})), Ask(prompts=prompts)]


def _prompt_from_request(key: str, request: Any) -> Prompt:
    """The prompt of an elicitation. Raises UpstreamFault for any other request."""
    params = request.get("params") if isinstance(request, dict) and request.get("method") == ELICITATION_METHOD else None
    if not isinstance(params, dict) or not isinstance(params.get("message"), str):
        raise UpstreamFault("The server asked for something that the gateway can't ask a person", str(request)[:200])
    if params.get("mode", "form") == "url" and isinstance(params.get("url"), str):
        return Prompt(key, params["message"], schema={}, kind=PromptKind.AUTH, url=params["url"])
    if not isinstance(params.get("requestedSchema"), dict):
        raise UpstreamFault("The server's message is not valid", "an elicitation without a schema")
    return Prompt(key, params["message"], schema=params["requestedSchema"])


def _input_responses(turn: Turn) -> dict[str, Any]:
    """The members with which the call is repeated (2026-07-28 MRTR): the answers and the server's state."""
    tool_call = turn.ref.extra.get(TOOL_CALL_KEY) if turn.ref is not None else None
    if not isinstance(tool_call, Mapping) or not turn.answers:
        return {}
    responses = {each.prompt.id: {"action": "accept"} | ({} if each.prompt.url else {"content": each.value}) for each in turn.answers}
    return {"inputResponses": responses, **({"requestState": tool_call["state"]} if "state" in tool_call else {})}


def parts_from_result(result: Mapping[str, Any]) -> tuple[Part, ...]:
    """A tool's result as parts: its structured content first, then its content blocks. Raises UpstreamFault."""
    content = result.get("content", [])
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise UpstreamFault("The server's result is not one of a tool")
    structured = result.get("structuredContent")
    data = (Part(data=structured, media_type="application/json"),) if isinstance(structured, dict) else ()
    return (*data, *(_part_from_block(block) for block in content)) or (Part(text=""),)


def _part_from_block(block: Mapping[str, Any]) -> Part:
    """A content block as a part; a block of unknown type as data."""
    match block:
        case {"type": "text", "text": str(text)}:
            return Part(text=text)
        case {"type": "image" | "audio", "data": str(raw), "mimeType": str(kind)}:
            return Part(raw=raw, media_type=kind)
        case {"type": "resource_link", "uri": str(uri)}:
            return Part(url=uri, media_type=str(block.get("mimeType", "")), filename=str(block.get("name", "")))
        case {"type": "resource", "resource": {"uri": str(uri), "text": str(text), **more}}:
            return Part(text=text, media_type=str(more.get("mimeType", "")), filename=uri)
        case {"type": "resource", "resource": {"uri": str(uri), "blob": str(raw), **more}}:
            return Part(raw=raw, media_type=str(more.get("mimeType", "")), filename=uri)
    return Part(data=dict(block), media_type="application/json")


_: type[Adapter] = ToolAgent
