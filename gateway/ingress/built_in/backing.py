"""Values of the board that a registered tool holds: each read and write calls that tool with the rights of the caller."""

from typing import Any, Final

import msgspec

from adapters.mcp_client.wire.eras import modern_params
from adapters.mcp_client.wire.messages import McpRefused, McpRequest, encode, envelope_of
from adapters.mcp_client.wire.param_headers import find_header_arguments, headers_for
from gateway.calls.server_calls import ServerCalls, ToolServerRequest
from gateway.state.board.problems import BackingFailed, NotBacked
from gateway.state.board.rules import Backing, backing_arguments
from gateway.telemetry.spans import TraceContext, current_trace_id
from policies.callers import Caller
from policies.delegation.rulings import act_of_calling_tool
from policies.ids import new_id
from policies.strict_json import BadJson, parse
from registry.store import Registry, UnknownName

RESULT_BYTES_MAX: Final = 1 << 20
COMPLETE: Final = "complete"
NOTHING: Final = object()


class ServerBackingTools:
    """Calls backing tools as any tool is called: found, limited, authorized and recorded. Nothing of a value is stored or cached."""

    def __init__(self, server_calls: ServerCalls, registry: Registry) -> None:
        self._server_calls = server_calls
        self._registry = registry

    async def read(self, caller: Caller, backing: Backing, key: str) -> Any:
        """The value that the read tool returns. Raises BackingFailed, BadKey, NotBacked, and what ServerCalls.call raises."""
        if not backing.read:
            raise NotBacked(f"The server {backing.server} holds the value of {key}, and has no tool to read it.")
        result = await self._call(caller, backing, backing.read, key, backing_arguments(backing, key))
        value = _value_of(result)
        if backing.result:
            value = value.get(backing.result, NOTHING) if isinstance(value, dict) else NOTHING
        if value is NOTHING:
            raise BackingFailed(key, f"{backing.server}.{backing.read}", "returned no value")
        return value

    async def write(self, caller: Caller, backing: Backing, key: str, value: Any) -> None:
        """Has the write tool set the value. Raises as `read` does."""
        if not backing.write:
            raise NotBacked(f"The server {backing.server} holds the value of {key}, and has no tool to set it.")
        await self._call(caller, backing, backing.write, key, backing_arguments(backing, key) | {backing.value: value})

    async def _call(self, caller: Caller, backing: Backing, tool: str, key: str, arguments: dict[str, Any]) -> dict[str, Any]:
        name, request_id = f"{backing.server}.{tool}", new_id("sb")
        params = encode(modern_params({"name": tool, "arguments": arguments, "_meta": {}}, None))
        raw = envelope_of(request_id, "tools/call", msgspec.Raw(params))
        act = act_of_calling_tool(backing.server, tool)
        try:
            headers = self._headers_of(caller, backing.server, tool, arguments)
            mcp_request = McpRequest(request_id, tool, raw, params, True, headers=headers)
            request = ToolServerRequest(backing.server, act, arguments, mcp_request, TraceContext(current_trace_id()))
            answer = await self._server_calls.call(caller, request)
        except (McpRefused, UnknownName):
            raise BackingFailed(key, name, "is not there, or refused the call") from None
        result = _parse(answer.result)
        if result is None or result.get("isError") or len(answer.result) > RESULT_BYTES_MAX:
            raise BackingFailed(key, name, "reported an error")
        if result.get("resultType", COMPLETE) != COMPLETE:
            raise BackingFailed(key, name, "asks a question, which the board can't pass on")
        return result

    def _headers_of(self, caller: Caller, server: str, tool: str, arguments: dict[str, Any]) -> dict[str, str]:
        """The headers that a server of 2026-07-28 wants with the arguments of this tool. Raises UnknownName."""
        entry = self._registry.find(caller.principal.tenant, server)
        schema = next((each.definition.get("inputSchema") for each in entry.tools if each.name == tool), None)
        return headers_for(tuple(find_header_arguments(schema)), arguments)


def _parse(result: bytes) -> dict[str, Any] | None:
    try:
        found = parse(result)
    except BadJson:
        return None
    return found if isinstance(found, dict) else None


def _value_of(result: dict[str, Any]) -> Any:
    """The structured content of a tool's result; without it the text, as JSON where it is JSON."""
    if "structuredContent" in result:
        return result["structuredContent"]
    content = result.get("content")
    texts = [each.get("text") for each in content if isinstance(each, dict)] if isinstance(content, list) else []
    text = next((each for each in texts if isinstance(each, str)), None)
    if text is None:
        return NOTHING
    try:
        return parse(text.encode())
    except BadJson:
        return text
