"""An MCP server of 2025-11-25 with its experimental tasks: a tool asks a name while its result is waited for, and greets."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

RELATED = "io.modelcontextprotocol/related-task"
TIMES = {"createdAt": "2025-11-25T00:00:00Z", "lastUpdatedAt": "2025-11-25T00:00:01Z", "ttl": 60000, "pollInterval": 50}
SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
OFFERS = {"tools": {}, "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}}
ENDED = ("completed", "failed", "cancelled")


class OlderTaskServer:
    """`bound`: a task is known in the session alone that it was begun in. `outcome`: what becomes of one: a result, or an error."""

    def __init__(self, support: str = "optional", bound: bool = True) -> None:
        self.support = support
        self.bound = bound
        self.names: dict[str, str] = {}  # whom a task greets
        self.outcome: dict[str, Any] | None = None
        self.seed: dict[str, Any] = {}  # of a task, beside what is true of it
        self.heard: list[dict[str, Any]] = []
        self.tasks: dict[str, dict[str, Any]] = {}  # by the server's own ids
        self.whose: dict[str, str] = {}  # its session
        self.able: dict[str, dict[str, Any]] = {}  # what the client of a session declared
        self.results = 0  # that are waited for
        self._number = itertools.count(1)
        self._news = asyncio.Event()

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/mcp", self.post, methods=["POST"]), Route("/mcp", self._none, methods=["GET", "DELETE"])])

    async def _none(self, request: Request) -> Response:
        return Response(status_code=405)

    async def post(self, request: Request) -> Response:
        message = await request.json()
        self.heard.append(message)
        self._news.set()
        if message.get("method") == "initialize":
            name = f"session-{next(self._number)}"
            self.able[name] = message["params"]["capabilities"]
            said = {"protocolVersion": "2025-11-25", "capabilities": OFFERS, "serverInfo": {"name": "old", "version": "1"}}
            return JSONResponse({"jsonrpc": "2.0", "id": message["id"], "result": said}, headers={"mcp-session-id": name})
        session = request.headers.get("mcp-session-id", "")
        if session not in self.able:
            return JSONResponse({"jsonrpc": "2.0", "id": message.get("id"), "error": {"code": -32600, "message": "no session"}}, 400)
        if "id" not in message or "method" not in message:
            return Response(status_code=202)
        if message["method"] == "tasks/result" and self._known(message, session):
            return StreamingResponse(self._result(message, session), media_type="text/event-stream")
        return JSONResponse({"jsonrpc": "2.0", "id": message["id"], **self._answer(message, session)})

    def _known(self, message: dict[str, Any], session: str) -> dict[str, Any] | None:
        own = message["params"].get("taskId", "")
        return self.tasks.get(own) if self.whose.get(own) == session or not self.bound else None

    def _answer(self, message: dict[str, Any], session: str) -> dict[str, Any]:
        method, params = message["method"], message["params"]
        if method == "tools/list":
            tool = {"name": "greet", "inputSchema": {"type": "object"}, "execution": {"taskSupport": self.support}}
            return {"result": {"tools": [tool]}}
        if method == "tools/call":
            return self._called(params, session)
        task = self._known(message, session)
        if task is None or (method == "tasks/cancel" and task["status"] in ENDED):
            return {"error": {"code": -32602, "message": "no such task"}}
        if method == "tasks/cancel":
            task["status"] = "cancelled"
            self._news.set()
        return {"result": task}

    def _called(self, params: dict[str, Any], session: str) -> dict[str, Any]:
        if "task" not in params:
            if self.support == "required":
                return {"error": {"code": -32601, "message": "only as a task"}}
            return {"result": {"content": [{"type": "text", "text": "at once"}]}}
        own = f"own-{next(self._number)}"
        status = "input_required" if "elicitation" in self.able[session] else "completed"
        self.tasks[own] = {"taskId": own, "status": status, **TIMES, **self.seed}
        self.whose[own] = session
        return {"result": {"task": {**self.tasks[own], "status": "working"} | self.seed}}

    async def _result(self, message: dict[str, Any], session: str) -> AsyncIterator[str]:
        task, related = self.tasks[message["params"]["taskId"]], {RELATED: {"taskId": message["params"]["taskId"]}}
        self.results += 1
        own = message["params"]["taskId"]
        try:
            if task["status"] == "input_required":
                number = f"ask-{next(self._number)}"
                params = {"mode": "form", "message": "Who?", "requestedSchema": SCHEMA, "_meta": related}
                yield event({"id": number, "method": "elicitation/create", "params": params})
                self.names[own] = (await self._answer_to(number, task)).get("content", {}).get("name", "nobody")
                if task["status"] == "input_required":
                    task["status"] = "failed" if self.outcome and "error" in self.outcome else "completed"
                yield event({"method": "notifications/tasks/status", "params": task})
            link = {"type": "resource_link", "uri": "note://1", "name": "note"}
            done = {"content": [{"type": "text", "text": f"hello {self.names.get(own, 'nobody')}"}, link], "_meta": related}
            yield event({"id": message["id"], **(self.outcome or {"result": done})})
        finally:
            self.results -= 1

    async def _answer_to(self, number: str, task: dict[str, Any]) -> dict[str, Any]:
        while task["status"] == "input_required":
            for message in self.heard:
                if message.get("id") == number and "method" not in message:
                    found: dict[str, Any] = message.get("result", {})
                    return found
            self._news.clear()
            await self._news.wait()
        return {}


def event(message: dict[str, Any]) -> str:
    return f"data: {json.dumps({'jsonrpc': '2.0', **message})}\n\n"
