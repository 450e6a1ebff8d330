"""Programs on free loopback ports, and a stand-in for the gateway that the example agents call back."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from examples.inventory_server import build as build_inventory

Serve = Callable[[ASGIApp], Awaitable[str]]
DENIAL = {"code": -32010, "message": "bob may not call inventory.reserve_stock", "data": {"decision_id": "d_42"}}


@asynccontextmanager
async def served(app: ASGIApp, listener: socket.socket | None = None) -> AsyncIterator[str]:
    listener = listener or socket.create_server(("127.0.0.1", 0))  # takes connections from now on: no client waits for the start
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await running


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def start(app: ASGIApp) -> str:
            return await stack.enter_async_context(served(app))

        yield start


class FakeGateway:
    """Trades any token for `onward`, passes tool calls to a real inventory, and refuses what it is told to."""

    def __init__(self) -> None:
        self.exchanges: list[dict[str, str]] = []
        self.authorizations: list[str] = []
        self.refuse_exchange = False
        self.refuse_tool = ""
        self.sales: dict[str, Any] = {}
        self.sent: list[dict[str, Any]] = []
        self.inventory = build_inventory()

    def app(self) -> Starlette:
        routes = [
            Route("/oauth/token", self.token, methods=["POST"]),
            Route("/agents/sales", self.answer, methods=["POST"]),
            Mount("/mcp/inventory", self.tools),
        ]
        return Starlette(routes=routes, lifespan=self.inventory.router.lifespan_context)

    async def token(self, request: Request) -> JSONResponse:
        form = await request.form()
        self.exchanges.append({name: str(value) for name, value in form.items()} | {"client": request.headers["authorization"]})
        if self.refuse_exchange:
            return JSONResponse({"error": "invalid_scope", "error_description": "more than was held"}, status_code=400)
        return JSONResponse({"access_token": "onward", "token_type": "Bearer"})

    async def answer(self, request: Request) -> JSONResponse:
        self.authorizations.append(request.headers["authorization"])
        self.sent.append(await request.json())
        return JSONResponse({"jsonrpc": "2.0", "id": 1, **self.sales})

    async def tools(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        self.authorizations.append(request.headers["authorization"])
        if self.refuse_tool and self.refuse_tool in body.decode():
            call = await request.json()
            await JSONResponse({"jsonrpc": "2.0", "id": call["id"], "error": DENIAL})(scope, receive, send)
            return

        async def again() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        await self.inventory({**scope, "path": "/mcp", "root_path": ""}, again, send)


@pytest.fixture
def fake_gateway() -> FakeGateway:
    return FakeGateway()
