"""MCP servers on loopback: real ones of the reference implementation, held to one era, and ones that misbehave by script."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Era = Literal["modern", "legacy", "both"]
Answer = Callable[[dict[str, Any]], Awaitable[Response]]


def tools() -> MCPServer:
    """Tools: echo, note (gives all texts that this session brought), fail (a result with isError)."""
    server = MCPServer("tools")
    seen: dict[str, list[str]] = {}

    @server.tool()
    def echo(text: str) -> str:
        """Says it again."""
        return text

    @server.tool()
    def note(text: str, context: Context) -> list[str]:
        """Keeps a text for this session, and gives all that this session brought."""
        session = (context.headers or {}).get("mcp-session-id", "")
        seen.setdefault(session, []).append(text)
        return seen[session]

    @server.tool()
    def fail() -> str:
        raise ToolError("no luck")

    return server


def shipping() -> MCPServer:
    """One tool, whose arguments travel as headers too."""
    server = MCPServer("shipping")

    @server.tool()
    def ship(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
        size: Annotated[int, Field(json_schema_extra={"x-mcp-header": "Size"})],
        urgent: Annotated[bool, Field(json_schema_extra={"x-mcp-header": "Urgent"})] = False,
    ) -> str:
        return f"{region} {size} {urgent}"

    return server


class Gate:
    """An ASGI app before another: keeps what comes in, and refuses the other era with 400 as servers of one era do."""

    def __init__(self, app: ASGIApp, era: Era) -> None:
        self._app = app
        self.era = era
        self.requests: list[tuple[str, dict[str, str]]] = []  # HTTP method, headers
        self.sessions: set[str] = set()
        self.forgets = 0  # answer so many requests of a session with 404

    def count(self, method: str) -> int:
        return sum(1 for name, _ in self.requests if name == method)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append((scope["method"], headers))
        modern = headers.get("mcp-protocol-version") == "2026-07-28"
        if self.era != "both" and modern != (self.era == "modern"):
            await Response("not here", 400)(scope, receive, send)
            return
        if self.forgets and "mcp-session-id" in headers:
            self.forgets -= 1
            await Response("gone", 404)(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            for name, value in message.get("headers", ()):
                if name == b"mcp-session-id":
                    self.sessions.add(value.decode())
            await send(message)

        await self._app(scope, receive, watched)


@asynccontextmanager
async def serving(app: ASGIApp, grace: int = 1, port: int = 0) -> AsyncIterator[str]:
    """Serves `app` on a free port; gives http://127.0.0.1:port. `grace`: seconds that open streams have at the end."""
    ends: dict[str, Any] = {"timeout_graceful_shutdown": grace, "timeout_keep_alive": 3600}
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", access_log=False, **ends)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        await server.shutdown()


@asynccontextmanager
async def mcp_server(era: Era, json_response: bool = True, server: MCPServer | None = None) -> AsyncIterator[tuple[str, Gate]]:
    """A reference server of that era, by default with `tools`: its URL and its gate."""
    gate = Gate((server or tools()).streamable_http_app(json_response=json_response), era)
    async with serving(gate, grace=0) as url:
        yield f"{url}/mcp", gate


@asynccontextmanager
async def scripted_server(answer: Answer) -> AsyncIterator[str]:
    """A server whose every POST is answered by `answer(request)`."""

    async def post(request: Request) -> Response:
        body = await request.body()
        return await answer(json.loads(body) if body else {})

    async with serving(Starlette(routes=[Route("/mcp", post, methods=["POST", "DELETE"])])) as url:
        yield f"{url}/mcp"
