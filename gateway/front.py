"""The front: sends each request to its door. The protocol doors are reached on bare ASGI, before the framework sees anything."""

import re
from collections.abc import Awaitable, Callable

from gateway.a2a_server.cards import Cards
from gateway.a2a_server.jsonrpc import JsonRpc
from gateway.asgi import Receive, Scope, Send, respond
from gateway.ledger import Trail
from gateway.mcp_server.endpoint import Endpoint

App = Callable[[Scope, Receive, Send], Awaitable[None]]
MCP = re.compile(r"/mcp(?:/([a-z0-9-]{1,64}))?")
AGENT = re.compile(r"/agents/([a-z0-9-]{1,64})(/\.well-known/agent-card\.json)?")


class Front:
    """The ASGI application. `lifespan` runs start and stop; `rest` is everything that is not a protocol door."""

    def __init__(self, a2a: JsonRpc, cards: Cards, mcp: Endpoint, rest: App, lifespan: App) -> None:
        self._a2a = a2a
        self._cards = cards
        self._mcp = mcp
        self._rest = rest
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await (self._lifespan if scope["type"] == "lifespan" else self._rest)(scope, receive, send)
            return
        path = scope["path"]
        if path.startswith("/mcp"):
            found = MCP.fullmatch(path)
            if found is not None:
                await self._mcp(scope, receive, send, found[1] or "", Trail())
                return
        elif path.startswith("/agents/"):
            found = AGENT.fullmatch(path)
            if found is not None:
                await self._agent(scope, receive, send, found)
                return
        await self._rest(scope, receive, send)

    async def _agent(self, scope: Scope, receive: Receive, send: Send, found: "re.Match[str]") -> None:
        if found[2]:
            await self._cards(scope, send, found[1])
        elif scope["method"] == "POST":
            await self._a2a(scope, receive, send, found[1], Trail())
        else:
            await respond(send, 405, b"{}", [(b"allow", b"POST")])
