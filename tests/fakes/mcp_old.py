"""A Streamable HTTP server of the legacy era by script, for what no reference server would do."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.fakes.mcp_servers import serving

Script = Callable[["OldServer", dict[str, Any]], AsyncIterator[str]]
RESULT = {"content": [{"type": "text", "text": "done"}]}


def event(message: Any, event_id: str = "") -> str:
    data = message if isinstance(message, str) else json.dumps({"jsonrpc": "2.0", **message})
    return (f"id: {event_id}\n" if event_id else "") + f"data: {data}\n\n"


def result(request: dict[str, Any], value: Any = RESULT) -> dict[str, Any]:
    return {"id": request["id"], "result": value}


class OldServer:
    """`call` makes the events that answer a tools/call, `general` those of the GET stream, `resumed` those after a Last-Event-ID."""

    def __init__(self, call: Script, general: Script | None = None, resumed: Script | None = None) -> None:
        self.call = call
        self.general = general
        self.resumed = resumed
        self.sessions: set[str] = set()
        self.opened = itertools.count(1)
        self.posted: list[dict[str, Any]] = []  # all but requests
        self.asked: list[dict[str, Any]] = []
        self.gets: list[dict[str, str]] = []
        self.news = asyncio.Event()

    @property
    def in_use(self) -> bool:
        """Whether the last session that was opened was used."""
        return bool(self.sessions) and self.asked[-1]["method"] != "initialize"

    async def answer_to(self, asked: Any) -> dict[str, Any]:
        """What the client POSTed as the answer to our request of that id."""
        while True:
            for message in self.posted:
                if message.get("id") == asked and "method" not in message:
                    return message
            self.news.clear()
            await self.news.wait()

    async def post(self, request: Request) -> Response:
        message = await request.json()
        if message.get("method") == "initialize":
            self.sessions.add(name := f"session-{next(self.opened)}")
            self.asked.append(message)
            offered = {"tools": {"listChanged": True}, "logging": {}, "resources": {"subscribe": True}}
            said = result(message, {"protocolVersion": "2025-11-25", "capabilities": offered, "serverInfo": {"name": "x", "version": "1"}})
            return JSONResponse({"jsonrpc": "2.0", **said}, headers={"mcp-session-id": name})
        if request.headers.get("mcp-session-id") not in self.sessions:
            while "late" in str(message) and not self.in_use:
                self.news.clear()
                await self.news.wait()
            return JSONResponse({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "Session not found"}}, 404)
        if "id" not in message or "method" not in message:
            self.posted.append(message)
            self.news.set()
            return Response(status_code=202)
        self.asked.append(message)
        self.news.set()
        if message["method"] != "tools/call":
            return JSONResponse({"jsonrpc": "2.0", **result(message, {})})
        return StreamingResponse(self.call(self, message), media_type="text/event-stream")

    async def get(self, request: Request) -> Response:
        self.gets.append(dict(request.headers))
        script = self.resumed if "last-event-id" in request.headers else self.general
        if script is None:
            return Response(status_code=405)
        return StreamingResponse(script(self, {}), media_type="text/event-stream")

    async def delete(self, request: Request) -> Response:
        self.sessions.discard(request.headers.get("mcp-session-id", ""))
        return Response(status_code=204)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        routes = [Route("/mcp", getattr(self, verb), methods=[verb.upper()]) for verb in ("post", "get", "delete")]
        async with serving(Starlette(routes=routes), grace=0) as url:
            yield f"{url}/mcp"
