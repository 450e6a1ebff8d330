"""MCP by hand over a real socket: requests as either era writes them, and answers as they come, event by event."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.fakes.house import TRACEPARENT, House

META = "io.modelcontextprotocol/"
ABLE: dict[str, Any] = {"elicitation": {}, "sampling": {}, "roots": {}}
EVENTS = "application/json, text/event-stream"


def document(method: str, params: Any, request_id: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def modern(method: str, params: dict[str, Any], capabilities: Any = None, **meta: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The body and its headers."""
    said = {META + "protocolVersion": "2026-07-28", META + "clientCapabilities": capabilities or {}, **meta}
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": method, "accept": EVENTS}
    name = params.get("uri") if method == "resources/read" else params.get("name")
    return document(method, {**params, "_meta": said}), headers | ({"mcp-name": name} if name else {})


async def post(home: House, user: str, body: Any, headers: dict[str, str], path: str = "/mcp/desk") -> httpx.Response:
    sent = {"authorization": f"Bearer {home.token(user)}", "content-type": "application/json", "accept": EVENTS, **headers}
    return await home.http.post(path, json=body, headers=sent)


async def session(home: House, user: str = "admin", path: str = "/mcp/desk", capabilities: Any = None, version: str = "2025-11-25") -> str:
    """An older client's session."""
    params = {"protocolVersion": version, "capabilities": capabilities or {}, "clientInfo": {"name": "t", "version": "1"}}
    answer = await post(home, user, document("initialize", params), {}, path)
    assert answer.status_code == 200, answer.text
    return answer.headers["mcp-session-id"]


class Events:
    """A stream of server-sent events."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.last_id = ""
        self.retry_ms = 0
        self._lines = answer.aiter_lines()

    async def next(self) -> Any:
        """The next message; None at the end."""
        data = ""
        async for line in self._lines:
            if line.startswith("id:"):
                self.last_id = line[3:].strip()
            elif line.startswith("retry:"):
                self.retry_ms = int(line[6:])
            elif line.startswith("data:"):
                data += line[5:].strip()
            elif not line and data:
                return json.loads(data)
        return None

    async def address(self) -> str:
        """Where to post to, which a stream of HTTP+SSE begins with."""
        assert await anext(self._lines) == "event: endpoint"
        return (await anext(self._lines)).removeprefix("data: ")

    async def first_of(self, method: str) -> Any:
        """The next message with that method; its parameters."""
        while (message := await self.next()) is not None:
            if message.get("method") == method:
                return message["params"]
        raise AssertionError(f"no {method} came")


@asynccontextmanager
async def stream(
    home: House, user: str, body: Any, headers: dict[str, str], path: str = "/mcp/desk", verb: str = "POST"
) -> AsyncIterator[Events]:
    """A request over the gateway's socket; left when the block ends."""
    sent = {"authorization": f"Bearer {home.token(user)}", "content-type": "application/json", "accept": EVENTS, **headers}
    content = None if verb == "GET" else json.dumps(body).encode()
    async with (
        httpx.AsyncClient(base_url=home.url, timeout=60, headers={"traceparent": TRACEPARENT}) as http,
        http.stream(verb, path, content=content, headers=sent) as answer,
    ):
        yield Events(answer)
