"""The sales agent as a LangGraph graph: it reserves stock with the inventory's MCP tools, through the gateway, for the person who asked."""

import asyncio
import os
import re
from typing import Any

import httpx
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, MessagesState, StateGraph

from examples.on_behalf import Gateway, Refused, credentials_from, refusal

ORDER = re.compile(r"(\d{1,4}) (?:of|x) (SKU-\d+)")
NEEDED = "tool:inventory.check_stock tool:inventory.reserve_stock"
REVISION = "2026-07-28"
TOKEN = "interlock-delegation"  # the header; LangGraph lets `authorization` through to no graph
META = {
    "io.modelcontextprotocol/protocolVersion": REVISION,
    "io.modelcontextprotocol/clientInfo": {"name": "sales", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Order(MessagesState, total=False):
    """What became of it, beside the words: `order` is confirmed or refused."""

    order: str
    reason: str
    decision_id: str
    sku: str
    name: str
    quantity: int
    total_cents: int
    reservation: str


async def sell(state: Order, config: RunnableConfig) -> dict[str, Any]:
    """The token that the gateway called with stands for the person who asked; langgraph.json lets its header through to here."""
    try:
        said, data = await reserved(_text(state["messages"][-1].content), config["configurable"].get(TOKEN, ""))
    except Refused as refused:
        said, data = f"No order: {refused.reason}", refused.as_data()
    return {"messages": [AIMessage(said)], **data}


async def reserved(text: str, token: str) -> tuple[str, dict[str, Any]]:
    """The confirmation in words and as data. Raises Refused."""
    wanted = ORDER.search(text)
    if not token:
        raise Refused("this agent was not called through the gateway: there is no token")
    if wanted is None:
        raise Refused("say how many of which article, for example: 2 of SKU-7")
    quantity, sku = int(wanted[1]), wanted[2]
    credentials = await asyncio.to_thread(credentials_from(os.environ["SALES_CREDENTIALS"]))
    gateway = Gateway(os.environ["SALES_GATEWAY"], lambda: credentials)
    onward = await gateway.exchange(token, "/mcp/inventory", NEEDED)
    async with httpx.AsyncClient(base_url=gateway.url, headers={"Authorization": f"Bearer {onward}"}, timeout=30) as client:
        stock = await call(client, "check_stock", sku=sku)
        booked = await call(client, "reserve_stock", sku=sku, quantity=quantity)
    price = f"{booked['total_cents'] / 100:.2f} EUR"
    said = f"Order confirmed: {quantity} x {sku} ({stock['name']}) for {price}, reservation {booked['reservation']}."
    return said, {"order": "confirmed", "name": stock["name"], **booked}


async def call(client: httpx.AsyncClient, tool: str, **arguments: Any) -> dict[str, Any]:
    """What a tool of the inventory answered. Raises Refused with the reason of the gateway or of the tool."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments, "_meta": META}}
    headers = {
        "MCP-Protocol-Version": REVISION,
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
        "Accept": "application/json, text/event-stream",
    }
    answer = (await client.post("/mcp/inventory", json=body, headers=headers)).json()
    if "result" not in answer:
        refused = refusal(answer)
        raise Refused(f"{tool} was refused: {refused.reason}", refused.decision_id)
    result = answer["result"]
    if result.get("isError") or "structuredContent" not in result:
        raise Refused(" ".join(block.get("text", "") for block in result["content"]))
    return dict(result["structuredContent"])


def _text(content: Any) -> str:
    return content if isinstance(content, str) else " ".join(block.get("text", "") for block in content)


builder = StateGraph(Order)
builder.add_node("sell", sell)
builder.add_edge(START, "sell")
graph = builder.compile()
