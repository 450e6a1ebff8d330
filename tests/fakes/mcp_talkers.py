"""A reference MCP server that talks back in both eras: it asks, tells of progress and logs, and changes."""

import asyncio
from typing import Annotated, Any

from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, ListRoots, Resolve, Sample
from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    EmptyResult,
    ListRootsResult,
    NotificationParams,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel


class Name(BaseModel):
    name: str


class Talker:
    """The server, and what it saw. `release` lets `slow` end."""

    def __init__(self) -> None:
        self.server = MCPServer("talker")
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.levels: list[str] = []
        self.subscribed: list[str] = []
        self.unsubscribed: list[str] = []
        self.heard: list[Any] = []  # notifications of clients
        self._questions()
        self._wonderings()
        self._sayings()
        self._changes()

    def _questions(self) -> None:
        def who() -> Elicit[Name]:
            return Elicit("Who are you?", Name)

        def thought() -> Sample:
            return Sample([SamplingMessage(role="user", content=TextContent(type="text", text="Think"))], max_tokens=5)

        def where() -> ListRoots:
            return ListRoots()

        @self.server.tool()
        async def greet(name: Annotated[Name, Resolve(who)]) -> str:
            return f"hello {name.name}"

        @self.server.tool()
        async def think(thoughts: Annotated[CreateMessageResult, Resolve(thought)]) -> str:
            return thoughts.content.text if isinstance(thoughts.content, TextContent) else ""

        @self.server.tool()
        async def roots(found: Annotated[ListRootsResult, Resolve(where)]) -> str:
            return " ".join(str(root.uri) for root in found.roots)

        @self.server.tool()
        async def all_of_it(
            name: Annotated[Name, Resolve(who)],
            found: Annotated[ListRootsResult, Resolve(where)],
            thoughts: Annotated[CreateMessageResult, Resolve(thought)],
        ) -> str:
            return f"{name.name} {len(found.roots)} {thoughts.model}"

        @self.server.tool()
        async def confer(context: Context) -> str:
            """Asks while it works, which the stateless era has no way for."""
            answer = await context.elicit("Who are you?", Name)
            return f"hello {answer.data.name}" if answer.action == "accept" else answer.action

    def _wonderings(self) -> None:
        @self.server.tool()
        async def ponder(context: Context) -> str:
            """Wants to hear how its question goes on."""

            async def progressed(progress: float, total: float | None, message: str | None) -> None:
                self.heard.append(progress)

            params = CreateMessageRequestParams(messages=[], max_tokens=5)
            asking = CreateMessageRequest(params=params)
            return (await context.session.send_request(asking, CreateMessageResult, progress_callback=progressed)).model

        @self.server.tool()
        async def hold(context: Context) -> str:
            """Asks, and then takes its time."""
            await context.elicit("Who are you?", Name)
            return await self._held()

    async def _held(self) -> str:
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return "late"

    def _sayings(self) -> None:
        @self.server.tool()
        async def count(to: int, context: Context) -> str:
            for number in range(1, to + 1):
                await context.report_progress(number, to, f"step {number}")
            for level in ("debug", "warning"):
                await context.log(level, f"a {level}")  # type: ignore[arg-type]  # two of its literals
            return "done"

        @self.server.tool()
        async def slow() -> str:
            return await self._held()

        async def level(context: ServerRequestContext, params: SetLevelRequestParams) -> EmptyResult:
            self.levels.append(params.level)
            return EmptyResult()

        self.server._lowlevel_server.add_request_handler("logging/setLevel", SetLevelRequestParams, level)

    def _changes(self) -> None:
        @self.server.resource("note://one")
        def note() -> str:
            return "one"

        @self.server.tool()
        async def change(context: Context) -> str:
            await context.notify_tools_changed()
            await context.notify_resource_updated("note://one")
            await context.session.send_tool_list_changed()
            await context.session.send_resource_updated("note://one")
            return "changed"

        @self.server.tool()
        async def grow(context: Context) -> str:
            """From now on there is one tool more."""
            name = f"extra_{len(await self.server.list_tools())}"
            self.server.add_tool(lambda: name, name=name, description="more")
            await context.notify_tools_changed()
            await context.session.send_tool_list_changed()
            return name

        @self.server.tool()
        async def shrink(context: Context) -> str:
            """From now on nobody thinks here."""
            if "think" in [tool.name for tool in await self.server.list_tools()]:
                self.server.remove_tool("think")
            await context.notify_tools_changed()
            await context.session.send_tool_list_changed()
            return "shrunk"

        async def subscribe(context: ServerRequestContext, params: SubscribeRequestParams) -> EmptyResult:
            self.subscribed.append(str(params.uri))
            return EmptyResult()

        async def unsubscribe(context: ServerRequestContext, params: UnsubscribeRequestParams) -> EmptyResult:
            self.subscribed.remove(str(params.uri))
            self.unsubscribed.append(str(params.uri))
            return EmptyResult()

        async def roots_changed(context: ServerRequestContext, params: Any) -> None:
            self.heard.append("roots")

        self.server._lowlevel_server.add_notification_handler("notifications/roots/list_changed", NotificationParams, roots_changed)
        self.server._lowlevel_server.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
        self.server._lowlevel_server.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)
