"""A sales agent that speaks only A2A 0.3. It reserves stock with the inventory's MCP tools, through the gateway."""

import os
import re
from typing import Any

os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

import httpx2
from a2a.compat.v0_3.conversions import to_compat_agent_card
from a2a.helpers.proto_helpers import new_data_part, new_task_from_user_message, new_text_part
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes.jsonrpc_dispatcher import JsonRpcDispatcher
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentInterface, AgentSkill
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from examples.on_behalf import Gateway, Refused, bearer, refusal
from examples.serving import serve_agent

ORDER = re.compile(r"(\d{1,4}) (?:of|x) (SKU-\d+)")
NEEDED = "tool:inventory.check_stock tool:inventory.reserve_stock"


class SalesAgent(AgentExecutor):
    """Turns `2 of SKU-7` into a reservation, with the rights of the person who asked: it has none of its own."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        assert context.message is not None
        task = context.current_task or new_task_from_user_message(context.message)
        await event_queue.enqueue_event(task)
        updater = TaskUpdater(event_queue, task.id, task.context_id)
        try:
            said, data = await self.order(context.get_user_input(), context.call_context.state["headers"])
        except Refused as refused:
            parts = [new_text_part(f"No order: {refused.reason}"), new_data_part(refused.as_data())]
            await updater.add_artifact(parts, name="order")
            await updater.failed(updater.new_agent_message(parts[:1]))
            return
        await updater.add_artifact([new_text_part(said), new_data_part(data)], name="order")
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, context.task_id or "", context.context_id or "").cancel()

    async def order(self, text: str, headers: dict[str, str]) -> tuple[str, dict[str, Any]]:
        """The confirmation in words and as data. Raises Refused."""
        wanted = ORDER.search(text)
        if wanted is None:
            raise Refused("say how many of which article, for example: 2 of SKU-7")
        quantity, sku = int(wanted[1]), wanted[2]
        token = await self.gateway.exchange(bearer(headers), "/mcp/inventory", NEEDED)
        reserved = await self.reserve(token, sku, quantity)
        if isinstance(reserved, Refused):
            raise reserved
        price = reserved["total_cents"] / 100
        said = f"Order confirmed: {quantity} x {sku} ({reserved['name']}) for {price:.2f} EUR, reservation {reserved['reservation']}."
        return said, {"order": "confirmed", **reserved}

    async def reserve(self, token: str, sku: str, quantity: int) -> dict[str, Any] | Refused:
        """What both tools answered. A refusal is returned: raised in here, the client's task groups would wrap it."""
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=30) as http,
            Client(streamable_http_client(f"{self.gateway.url}/mcp/inventory", http_client=http), mode="2026-07-28") as client,
        ):
            stock = await call(client, "check_stock", {"sku": sku})
            if isinstance(stock, Refused):
                return stock
            reserved = await call(client, "reserve_stock", {"sku": sku, "quantity": quantity})
            return reserved if isinstance(reserved, Refused) else {**stock, **reserved}


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> dict[str, Any] | Refused:
    """What the tool answered, or the reason of the gateway or of the tool."""
    try:
        result = await client.call_tool(tool, arguments)
    except MCPError as error:
        refused = refusal({"message": error.message, "data": error.data})
        return Refused(f"{tool} was refused: {refused.reason}", refused.decision_id)
    if result.is_error or result.structured_content is None:
        return Refused(" ".join(getattr(part, "text", "") for part in result.content))
    return dict(result.structured_content)


def card(url: str) -> AgentCard:
    return AgentCard(
        name="Sales",
        description="Takes orders for furniture and reserves the stock.",
        version="1.0.0",
        supported_interfaces=[AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version="0.3.0")],
        capabilities=AgentCapabilities(streaming=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain", "application/json"],
        skills=[AgentSkill(id="order", name="Take an order", description="Orders such as: 2 of SKU-7", tags=["order", "sales"])],
    )


class Only03(JsonRpcDispatcher):
    """The SDK's JSON-RPC endpoint without the methods of 1.0: each of them is answered with -32601, method not found."""

    METHOD_TO_MODEL: dict[str, type] = {}  # noqa: RUF012  # declared so by the SDK, and only read


def build(url: str, gateway: Gateway) -> ASGIApp:
    described = card(url)
    old_card = to_compat_agent_card(described).model_dump(mode="json", by_alias=True, exclude_none=True)
    handler = DefaultRequestHandler(SalesAgent(gateway), InMemoryTaskStore(), described)

    async def show_card(_: Request) -> JSONResponse:
        return JSONResponse(old_card)

    endpoint = Only03(handler, enable_v0_3_compat=True)
    return Starlette(
        routes=[
            Route("/.well-known/agent-card.json", show_card),
            Route("/", endpoint.handle_requests, methods=["POST"]),
        ]
    )


if __name__ == "__main__":
    serve_agent(__doc__ or "", build)
