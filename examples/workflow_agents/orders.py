"""Support, sales and the stock of a small furniture shop: support-case.yaml and offer.yaml."""

import re
from collections.abc import Callable
from itertools import count
from typing import Any

from examples.workflow_agents.scripted import Agent, Failed, Given, Server, refuse

WANTED = re.compile(r"(\d{1,4}) (?:of|x) (SKU-\d+)")
PRICES = {"SKU-7": 34900, "SKU-9": 2450}
SURE, UNSURE = 0.95, 0.3


def understand(given: Given) -> dict[str, Any]:
    """What a customer wants, of the words that they wrote."""
    if found := WANTED.search(str(given.get("text", ""))):
        return {"quantity": int(found[1]), "sku": found[2], "confidence": SURE}
    return {"quantity": 1, "sku": "SKU-7", "confidence": UNSURE}


def quote(given: Given) -> dict[str, Any]:
    """A price in cents: three per cent less from ten pieces on."""
    price = PRICES.get(given["sku"])
    if price is None:
        raise Failed(f"sales has no price of {given['sku']}")
    total = price * given["quantity"]
    return {"total_cents": total - total * 3 // 100 if given["quantity"] >= 10 else total, "confidence": SURE}


def stock() -> list[Callable[..., Any]]:
    left = {"SKU-7": 12, "SKU-9": 1}
    reserved: dict[str, tuple[str, int]] = {}
    numbers = count(1001)

    def check(sku: str) -> dict[str, int]:
        """How many of an article are left."""
        return {"left": left.get(sku, 0)}

    def reserve(sku: str, quantity: int) -> dict[str, str]:
        """Takes articles out of the stock."""
        if not 0 < quantity <= left.get(sku, 0):
            raise refuse(f"only {left.get(sku, 0)} of {sku} are left")
        left[sku] -= quantity
        name = f"R-{next(numbers)}"
        reserved[name] = (sku, quantity)
        return {"reservation": name}

    def release(reservation: str) -> dict[str, int]:
        """Puts the articles of a reservation back."""
        sku, quantity = reserved.pop(reservation, ("", 0))
        if sku:
            left[sku] += quantity
        return {"left": left.get(sku, 0)}

    return [check, reserve, release]


AGENTS = (
    Agent("support-desk", "Reads what customers write, and says what they want.", understand),
    Agent("sales-desk", "Makes a quote for an article.", quote, speaks="0.3", skill="quote"),
)
SERVERS = (Server("stock", stock),)
