"""An MCP server as an agent: a message names one of its tools, and the tool's result is the artifact of the task."""

import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

from msgspec import UNSET, Raw, structs

from adapters.a2a_wire.v1 import BadMessage
from adapters.consent_waits import parked, question
from adapters.contract import (
    Adapter,
    ArtifactPiece,
    Call,
    CannotCancel,
    ConsentNeeded,
    Done,
    Event,
    Failed,
    Turn,
    UpstreamFault,
    VendorRef,
)
from adapters.mcp_crossing import modern_params
from adapters.mcp_params import headers_for, mirrored
from adapters.mcp_wire import McpAnswer, McpRefused, McpRequest, encode, envelope_of
from adapters.task import Artifact, Message, Part, Role
from policies.strict_json import BadJson, parse

ARTIFACT: Final = "result"
FAILED: Final = "The tool reports an error"
HOW: Final = 'must be one data part {"tool": …, "arguments": {…}}, or one text `tool: name {json}`'
NAME_MAX: Final = 128  # characters of a tool's name
_NAME_END: Final = re.compile(r"[\s{]")


class Servers(Protocol):
    """adapters/mcp_tools.py."""

    async def call(self, call: Call, request: McpRequest) -> McpAnswer: ...


class Wanted(NamedTuple):
    """The tool that a message names, and its arguments."""

    tool: str
    arguments: Mapping[str, Any]


def wanted(message: Message) -> Wanted:
    """Raises BadMessage."""
    if len(message.parts) != 1:
        raise BadMessage("message.parts", HOW)
    part = message.parts[0]
    if part.data is not UNSET:
        return _of_data(part.data)
    return _of_text(part.text if isinstance(part.text, str) else "")


def _of_text(text: str) -> Wanted:
    """Reads `tool: name {json}`, where the object may be left out. The name ends at the first white space or brace."""
    keyword, _, rest = text.strip().partition(":")
    rest = rest.lstrip()
    end = _NAME_END.search(rest)
    name = rest[: end.start()] if end else rest
    given = rest[len(name) :].lstrip()
    if keyword != "tool" or not 0 < len(name) <= NAME_MAX or not (given.startswith("{") or not given):
        raise BadMessage("message.parts[0]", HOW)
    try:
        arguments = parse((given or "{}").encode())
    except BadJson:
        raise BadMessage("message.parts[0].text", "has arguments that are not JSON") from None
    return Wanted(name, arguments)


def _of_data(data: Any) -> Wanted:
    if not isinstance(data, dict) or data.keys() - {"tool", "arguments"}:
        raise BadMessage("message.parts[0].data", HOW)
    tool, arguments = data.get("tool"), data.get("arguments", {})
    if not isinstance(tool, str) or not isinstance(arguments, dict):
        raise BadMessage("message.parts[0].data", HOW)
    return Wanted(tool, arguments)


class ToolAgent:
    """Calls the tool under the Grant for that very tool and those arguments; there is nobody whom the server could ask anything."""

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """One piece, and the end."""
        asked = wanted(turn.message)
        if f"{call.target.name}.{asked.tool}" != call.grant.decision.act.resource:
            raise BadMessage("message.parts", "names another tool than was allowed")
        try:
            for event in await self._called(asked, call):
                yield event
        except ConsentNeeded as needed:
            yield parked(structs.replace(turn, ref=None), call, needed)
            yield question(needed)

    async def _called(self, asked: Wanted, call: Call) -> list[Event]:
        params = encode(modern_params({"name": asked.tool, "arguments": asked.arguments, "_meta": {}}))
        raw = envelope_of(call.idempotency_key, "tools/call", Raw(params))
        schema = next((tool.definition.get("inputSchema") for tool in call.target.tools if tool.name == asked.tool), None)
        headers = headers_for(tuple(mirrored(schema)), asked.arguments)
        try:
            answer = await self._servers.call(call, McpRequest(call.idempotency_key, asked.tool, raw, params, True, headers=headers))
        except McpRefused as refused:
            return [Failed(refused.public, rejected=refused.code == -32602, detail=refused.detail)]
        result = parse(answer.result)
        if result.get("resultType", "complete") != "complete":
            raise UpstreamFault("The server asks for input, which nobody is there to give")
        parts = parts_of(result)
        if result.get("isError") is True:
            return [Failed(FAILED, message=Message(f"m-{call.idempotency_key}", Role.AGENT, parts))]
        return [ArtifactPiece(Artifact(ARTIFACT, parts, name=asked.tool)), Done()]

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        raise CannotCancel


def parts_of(result: Mapping[str, Any]) -> tuple[Part, ...]:
    """A tool's result as parts: its structured content first, then the blocks of its content. Raises UpstreamFault."""
    content = result.get("content", [])
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise UpstreamFault("The server's result is not one of a tool")
    structured = result.get("structuredContent")
    data = (Part(data=structured, media_type="application/json"),) if isinstance(structured, dict) else ()
    return (*data, *(_part(block) for block in content)) or (Part(text=""),)


def _part(block: Mapping[str, Any]) -> Part:
    """A block of any kind that is not known is data."""
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
