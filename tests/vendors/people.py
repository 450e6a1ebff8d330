"""People at the gateway, with the reference clients of A2A 1.0 and of MCP."""

import os
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

import httpx
import httpx2
from a2a.client.client import ClientCallContext
from a2a.client.transports.jsonrpc import JsonRpcTransport
from a2a.types import AgentCapabilities, AgentCard, CancelTaskRequest, GetTaskRequest, SendMessageRequest
from google.protobuf.json_format import MessageToDict, ParseDict
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult

SECONDS = 60.0  # that one answer may take
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Person:
    """One user of the gateway at `url`."""

    url: str
    token: str

    async def sends(self, agent: str, *parts: Json, now: bool = False, **more: str) -> Json:
        """The task as JSON once it ended or waits, or with `now` as it begins. `more`: taskId, contextId."""
        async with self._agent(agent) as (transport, context):
            return _json((await transport.send_message(_request(parts, now, more), context=context)).task)

    async def streams(self, agent: str, *parts: Json, **more: str) -> list[Json]:
        """Every event as JSON."""
        async with self._agent(agent) as (transport, context):
            arriving = transport.send_message_streaming(_request(parts, False, more), context=context)
            return [_json(event) async for event in arriving]

    async def cancels(self, agent: str, task_id: str) -> Json:
        async with self._agent(agent) as (transport, context):
            return _json(await transport.cancel_task(CancelTaskRequest(id=task_id), context=context))

    async def reads(self, agent: str, task_id: str) -> Json:
        async with self._agent(agent) as (transport, context):
            return _json(await transport.get_task(GetTaskRequest(id=task_id), context=context))

    async def calls(self, agent: str, text: str, replies: Mapping[str, Any] | None = None) -> tuple[list[Json], str]:
        """An agent as a tool: the forms that were shown, and the text of the result. `replies` is what forms get; None declines them."""
        forms: list[Json] = []

        async def elicited(_: Any, params: Any) -> ElicitResult:
            forms.append(params.model_dump(by_alias=True, exclude_none=True))
            return ElicitResult(action="accept", content=dict(replies)) if replies else ElicitResult(action="decline")

        async with (
            httpx2.AsyncClient(headers=self._headers, timeout=SECONDS) as http,
            Client(streamable_http_client(f"{self.url}/mcp", http_client=http), mode="2026-07-28", elicitation_callback=elicited) as client,
        ):
            result = await client.call_tool(agent, {"message": text})
        return forms, " ".join(getattr(block, "text", "") for block in result.content)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @asynccontextmanager
    async def _agent(self, name: str) -> AsyncIterator[tuple[JsonRpcTransport, ClientCallContext]]:
        card = AgentCard(capabilities=AgentCapabilities(streaming=True))
        async with httpx.AsyncClient(headers={**self._headers, "A2A-Version": "1.0"}, timeout=SECONDS) as http:
            yield JsonRpcTransport(http, card, f"{self.url}/agents/{name}"), ClientCallContext(timeout=SECONDS)


def _request(parts: tuple[Json, ...], now: bool, more: Mapping[str, str]) -> SendMessageRequest:
    message = {"messageId": str(uuid.uuid4()), "role": "ROLE_USER", "parts": list(parts), **more}
    return ParseDict({"message": message, "configuration": {"returnImmediately": now}}, SendMessageRequest())


def _json(message: Any) -> Json:
    return dict(MessageToDict(message))
