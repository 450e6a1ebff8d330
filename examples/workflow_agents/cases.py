"""A coordinator that plans the resolution of a case, and those whom it plans with: resolve-case.yaml."""

from collections.abc import Callable
from typing import Any

from examples.workflow_agents.scripted import Agent, Given, Server, refuse

ITEMS = {"O-7": "lamp", "O-8": "desk"}


def plan(given: Given) -> dict[str, Any]:
    """Replaces what was ordered; a case without an order is about the bill."""
    if given["input"].get("order"):
        find = {"tool": "orders.find", "arguments": {"id": {"from": "input", "path": "/order"}}}
        replace = {"tool": "orders.replace", "arguments": {"item": {"from": "order", "path": "/item"}}}
        steps = [{"order": {"call": "gateway.tool", "with": find}}, {"new": {"call": "gateway.tool", "with": replace}}]
    else:
        ask = {"agent": "billing", "input": {"problem": {"from": "input", "path": "/problem"}}}
        steps = [{"new": {"call": "gateway.agent", "with": ask}}]
    return {"do": [*steps, {"done": {"set": {"resolution": {"from": "new", "path": "/text"}}}}]}


def correct(given: Given) -> dict[str, Any]:
    """Corrects a bill."""
    return {"text": "The bill is correct now."}


def offer(given: Given) -> dict[str, Any]:
    """Offers something else instead."""
    return {"text": "Choose another article of the same price."}


def write(given: Given) -> dict[str, Any]:
    """A letter with the resolution of a case."""
    return {"letter": f"Good news: {given['resolution']}"}


def orders() -> list[Callable[..., Any]]:
    def find(id: str) -> dict[str, str]:
        """What was ordered."""
        if id not in ITEMS:
            raise refuse(f"there is no order {id}")
        return {"item": ITEMS[id]}

    def replace(item: str) -> dict[str, str]:
        """Sends an article again."""
        return {"text": f"A new {item} is on its way."}

    return [find, replace]


AGENTS = (
    Agent("coordinator", "Plans how a customer's case is resolved.", plan),
    Agent("billing", "Corrects bills.", correct),
    Agent("sales", "Offers something else instead.", offer, speaks="0.3"),
    Agent("letters", "Writes letters to customers.", write, skill="write"),
    Agent("support", "Writes letters where nobody else does.", write, skill="write"),
)
SERVERS = (Server("orders", orders),)
