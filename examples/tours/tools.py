"""Calling a tool of the gateway's for the person who asked."""

import json
from collections.abc import Mapping
from typing import Any

import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult

from examples.on_behalf import Gateway, Refused, bearer, refusal


async def call_tool(
    gateway: Gateway, headers: Mapping[str, str], tool: str, arguments: dict[str, Any], *, more_scope: str = ""
) -> dict[str, Any]:
    """The structured result of `server.name`, with the rights of the person behind the request. Raises Refused.

    `more_scope` names the permissions that the call needs beside that for the tool.
    """
    server, _, name = tool.partition(".")
    token = await gateway.exchange(bearer(headers), f"/mcp/{server}", f"tool:{tool} {more_scope}".strip())
    result = await _send(f"{gateway.url}/mcp/{server}", token, name, arguments)
    if isinstance(result, Refused):
        raise result
    if result.is_error or result.structured_content is None:
        raise _refusal_of(" ".join(getattr(part, "text", "") for part in result.content))
    return dict(result.structured_content)


def _refusal_of(text: str) -> Refused:
    """Reads a result that is an error: of the gateway's own servers it is JSON with a `detail`, of others any text."""
    try:
        error = json.loads(text)["error"]
        return Refused(str(error["detail"]), str(error.get("decision_id", "")))
    except (ValueError, KeyError, TypeError):
        return Refused(text)


async def _send(url: str, token: str, name: str, arguments: dict[str, Any]) -> CallToolResult | Refused:
    """The result of one call. A refusal is returned: raised in here, the client's task groups would wrap it."""
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http), mode="2026-07-28") as client,
    ):
        try:
            return await client.call_tool(name, arguments)
        except MCPError as error:
            return refusal({"message": error.message, "data": error.data})
