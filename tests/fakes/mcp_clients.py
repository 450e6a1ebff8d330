"""Reference MCP clients of both eras before a gateway, with answers ready, and reference servers behind it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import MCPServer
from mcp_types import CreateMessageResult, ElicitResult, ListRootsResult, Root, TextContent

from registry.cards.card import Family, RegistrationStatus
from registry.rows import Candidate, offer_fields
from tests.fakes.house import House
from tests.fakes.mcp_servers import Era, Gate, mcp_server

Mode = Literal["auto", "legacy", "2026-07-28"]


class Person:
    """Whoever sits before a client: what they heard and were asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.progress: list[float] = []
        self.logs: list[Any] = []
        self.told: list[str] = []

    async def elicited(self, _context: Any, params: Any) -> ElicitResult:
        self.asked.append(params.message)
        return ElicitResult(action="accept", content={"name": "Ada"})

    async def sampled(self, _context: Any, params: Any) -> CreateMessageResult:
        self.asked.append("sample")
        return CreateMessageResult(role="assistant", content=TextContent(type="text", text="deep"), model="m-1")

    async def rooted(self, _context: Any) -> ListRootsResult:
        self.asked.append("roots")
        return ListRootsResult(roots=[Root(uri="file:///home")])  # type: ignore[arg-type]  # read into its type

    async def logged(self, params: Any) -> None:
        self.logs.append(params.data)

    async def progressed(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append(progress)

    async def messaged(self, message: Any) -> None:
        method = getattr(message, "method", "") or getattr(getattr(message, "root", None), "method", "")
        self.told.append(method)

    def able(self) -> dict[str, Any]:
        """What makes a client able to be asked."""
        return {"elicitation_callback": self.elicited, "sampling_callback": self.sampled, "list_roots_callback": self.rooted}


@asynccontextmanager
async def client_of(home: House, user: str, mode: Mode, server: str = "", **more: Any) -> AsyncIterator[Client]:
    """A client at /mcp, also with a query (`?…`), or at one server. `more`: what it is able to."""
    headers = {"Authorization": f"Bearer {home.token(user)}"}
    url = f"{home.url}/mcp{server}" if server.startswith("?") else f"{home.url}/mcp/{server}".rstrip("/")
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode, **more) as client,
    ):
        yield client


async def upstream(home: House, era: Era, server: MCPServer, name: str = "desk", json_response: bool = False) -> Gate:
    """A reference server of that era behind the gateway, with all that it offers."""
    url, gate = await home.stack.enter_async_context(mcp_server(era, json_response, server))
    await probed(home, url, name)
    return gate


async def probed(home: House, url: str, name: str = "desk") -> None:
    """Registers a server with all that it lists."""
    found = await home.gateway.tools.probe(name, url, {})
    lists = {"tools": found.tools, "prompts": found.prompts, "resources": found.resources, "templates": found.templates}
    entry = Candidate(
        tenant="default",
        name=name,
        family=Family.SERVER,
        kind="mcp",
        url=url,
        owner="operator",
        status=RegistrationStatus.ACTIVE,
        facts=found.facts,
        **offer_fields(lists),
    )
    await home.gateway.registry.add(entry)
    await home.gateway.database.refresh_epochs()


def text(result: Any) -> str:
    return " ".join(block.text for block in result.content)
