"""An MCP server whose tools are functions of the gateway. Each tool gets the caller, so that it acts with the asker's rights and no more.

A refusal becomes a result with `isError`, whose text says to a model what to do.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Struct

from adapters.contract import Call
from adapters.mcp_client.wire.messages import INVALID_PARAMS, RESOURCE_NOT_FOUND, McpAnswer, McpRefused, McpRequest, answer_with, encode
from gateway.calls.authorizer import CallRefused
from gateway.ingress.http.error_bodies import mcp_data
from gateway.ingress.http.errors import describe
from gateway.storage.database import UnstorableValue
from policies.callers import Caller, caller_of_grant
from policies.strict_json import parse

JSON_TYPE: Final = "application/json"
Document = Mapping[str, Any]
ReadResource = Callable[[Caller, str], Awaitable[Document]]


@dataclass(frozen=True, slots=True)
class BuiltInTool:
    """One tool: its entry of tools/list without the name, the type of its arguments, and the function that does it."""

    arguments: type[Struct]
    run: Callable[[Caller, Any], Awaitable[Document]]


class FunctionServer:
    """Answers tools/call and resources/read. `refusals`: exceptions beside CallRefused and UnstorableValue that a caller may learn of."""

    def __init__(
        self, tools: Mapping[str, BuiltInTool], refusals: Sequence[type[Exception]], read_resource: ReadResource | None = None
    ) -> None:
        self._tools = tools
        self._refusals: tuple[type[Exception], ...] = (CallRefused, UnstorableValue, *refusals)
        self._read_resource = read_resource

    async def call(self, call: Call, request: McpRequest) -> McpAnswer:
        """Answers one request with the rights of the caller whose Grant the call has. Raises McpRefused."""
        caller = caller_of_grant(call.grant)
        if request.method == "tools/call":
            return answer_with(request, await self._call_tool(caller, request))
        if request.method == "resources/read" and self._read_resource is not None:
            return answer_with(request, await self._read(caller, request.name))
        raise McpRefused(-32601, request.method)

    async def _call_tool(self, caller: Caller, request: McpRequest) -> dict[str, Any]:
        tool = self._tools.get(request.name)
        if tool is None:
            raise McpRefused(INVALID_PARAMS, "no such tool")
        try:
            arguments = msgspec.convert(parse(request.params).get("arguments", {}), tool.arguments)
        except msgspec.ValidationError as error:
            return _tool_result({"error": {"reason_id": "bad-params", "detail": str(error)}}, is_error=True)
        try:
            return _tool_result(await tool.run(caller, arguments))
        except self._refusals as error:
            report = describe(error)
            return _tool_result({"error": {**mcp_data(report), "detail": report.detail}}, is_error=True)

    async def _read(self, caller: Caller, uri: str) -> dict[str, Any]:
        """A resource that the caller may not read is answered as one that does not exist."""
        assert self._read_resource is not None
        try:
            text = encode(await self._read_resource(caller, uri)).decode()
        except self._refusals as error:
            raise McpRefused(RESOURCE_NOT_FOUND, type(error).__name__, {"uri": uri}) from None
        return {"contents": [{"uri": uri, "mimeType": JSON_TYPE, "text": text}]}


def _tool_result(document: Document, is_error: bool = False) -> dict[str, Any]:
    text = encode(document).decode()
    return {"content": [{"type": "text", "text": text}], "structuredContent": document, "isError": is_error}
