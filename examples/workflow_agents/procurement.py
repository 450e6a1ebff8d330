"""Four vendors' systems that buy something together: procurement.yaml."""

from collections.abc import Callable
from itertools import count
from typing import Any

from examples.workflow_agents.scripted import Agent, Failed, Given, Server, refuse

PRICES = {"laptop": 900, "desk": 350}  # EUR
CLAUSES = {"shady": ["unlimited liability", "no termination"]}
RISKS = {"acme": 20, "globex": 75}  # of 100


def analyze(given: Given) -> dict[str, Any]:
    """What an item costs."""
    price = PRICES.get(given["item"])
    if price is None:
        raise Failed(f"there is no offer of a {given['item']}")
    return {"total": price * given["quantity"], "confidence": 0.92}


def review(given: Given) -> dict[str, Any]:
    """Whether a supplier's contract is acceptable."""
    clauses = CLAUSES.get(given["supplier"], [])
    return {"acceptable": not clauses, "clauses": clauses, "confidence": 0.88}


def rate(given: Given) -> dict[str, Any]:
    """How risky a supplier is."""
    return {"score": RISKS.get(given["supplier"], 50)}


def erp() -> list[Callable[..., Any]]:
    orders: dict[str, str] = {}
    left = {"CC-1": 20_000, "CC-2": 500}
    numbers = count(5001)

    def create_order(supplier: str, item: str, quantity: int) -> dict[str, str]:
        """Orders at a supplier."""
        order = f"PO-{next(numbers)}"
        orders[order] = "open"
        return {"order": order}

    def cancel_order(order: str) -> dict[str, str]:
        """Cancels an order."""
        orders[order] = "canceled"
        return {"order": order}

    def show_order(order: str) -> dict[str, str]:
        """Whether an order is open or canceled."""
        return {"order": order, "state": orders.get(order, "unknown")}

    def book_budget(cost_center: str, amount: int) -> dict[str, int]:
        """Takes an amount from the budget of a cost center."""
        if amount > left.get(cost_center, 0):
            raise refuse(f"{cost_center} has {left.get(cost_center, 0)} EUR left")
        left[cost_center] -= amount
        return {"left": left[cost_center]}

    return [create_order, cancel_order, show_order, book_budget]


AGENTS = (
    Agent("analyst", "Finds out what an item costs.", analyze),
    Agent("contract-review", "Reviews the contract of a supplier.", review, speaks="0.3"),
    Agent("supplier-risk", "Rates the risk of a supplier.", rate, speaks="http"),
)
SERVERS = (Server("erp", erp),)
