"""A bank's payments and its fraud analysis: suspicious-transaction.yaml."""

from collections.abc import Callable
from typing import Any

from examples.workflow_agents.scripted import Agent, Given, Server, refuse

KNOWN_PAYEES = {"landlord", "electricity"}
LARGE = 100_000  # cents
EXECUTED = "P-9"  # a payment that nobody can pause any more


def analyze(given: Given) -> dict[str, Any]:
    """Whether a payment is legitimate: known payees are, gift cards are not, and large sums are for the customer to say."""
    if given["payee"] in KNOWN_PAYEES:
        return {"verdict": "legitimate", "reasons": ["the customer pays them every month"], "confidence": 0.97}
    if "gift card" in given["payee"]:
        return {"verdict": "fraud", "reasons": ["gift cards are a known pattern"], "confidence": 0.92}
    if given["cents"] > LARGE:
        return {"verdict": "suspicious", "reasons": ["a large sum to a new payee"], "confidence": 0.86}
    return {"verdict": "legitimate", "reasons": [], "confidence": 0.4}


def payments() -> list[Callable[..., Any]]:
    states: dict[str, str] = {EXECUTED: "executed"}
    asked: list[str] = []

    def pause(payment: str) -> dict[str, str]:
        """Pauses a payment, unless it is executed already."""
        if states.get(payment) != "executed":
            states[payment] = "paused"
        return {"state": states[payment]}

    def release(payment: str) -> dict[str, str]:
        """Lets a paused payment go on."""
        return _end(payment, "released")

    def block(payment: str) -> dict[str, str]:
        """Sends the money of a paused payment back."""
        return _end(payment, "blocked")

    def _end(payment: str, state: str) -> dict[str, str]:
        if states.get(payment) not in ("paused", state):
            raise refuse(f"{payment} is {states.get(payment, 'unknown')}, not paused")
        states[payment] = state
        return {"state": state}

    def ask_customer(customer: str, text: str) -> dict[str, int]:
        """Shows a question in the customer's app."""
        asked.append(f"{customer}: {text}")
        return {"question": len(asked)}

    def show(payment: str) -> dict[str, str]:
        """Whether a payment is paused, released, blocked or executed."""
        return {"state": states.get(payment, "unknown")}

    return [pause, release, block, ask_customer, show]


AGENTS = (Agent("fraud-analysis", "Says whether a payment is legitimate.", analyze),)
SERVERS = (Server("payments", payments),)
