"""What happens to customers after the sale: after-ticket.yaml, upsell.yaml and account-health.yaml."""

from collections.abc import Callable
from typing import Any

from examples.workflow_agents.scripted import Agent, Given, Server, refuse

ACCOUNTS = {"C-1": (92, 0), "C-2": (8, 3), "C-3": (55, 1), "C-4": (0, 0)}  # per cent of the seats in use, open cases
UNKNOWN_USAGE = "C-4"
PRICE = 12  # EUR a seat and month


def renew(given: Given) -> dict[str, Any]:
    """A renewal offer; the happiest customers get a year at a lower price."""
    price = PRICE - 2 if given["score"] >= 9 else PRICE
    return {"subject": "Your renewal", "text": f"Another year for {price} EUR a seat and month?", "price": price, "confidence": 0.9}


def upsell(given: Given) -> dict[str, Any]:
    """An e-mail that offers more."""
    return {"subject": "More seats", "text": f"{given['usage']} % of your seats are in use. Do you need more?", "confidence": 0.85}


def rate(given: Given) -> dict[str, Any]:
    """How an account is doing."""
    if given["usage"] < 20 or given["cases"] > 2:
        return {"health": "poor", "confidence": 0.9}
    return {"health": "good" if given["usage"] > 80 and not given["cases"] else "fair", "confidence": 0.9}


def accounts() -> list[Callable[..., Any]]:
    def list_accounts() -> dict[str, list[str]]:
        """The customers that have an account."""
        return {"customers": sorted(ACCOUNTS)}

    def read_usage(customer: str) -> dict[str, int]:
        """How many of 100 seats a customer uses."""
        if customer == UNKNOWN_USAGE:
            raise refuse(f"nothing is measured of {customer}")
        return {"usage": ACCOUNTS[customer][0]}

    def count_cases(customer: str) -> dict[str, int]:
        """How many cases of a customer are open."""
        return {"cases": ACCOUNTS[customer][1]}

    return [list_accounts, read_usage, count_cases]


AGENTS = (
    Agent("renewals", "Makes renewal offers.", renew),
    Agent("upseller", "Writes e-mails that offer more.", upsell, speaks="0.3"),
    Agent("account-rating", "Says how an account is doing.", rate),
)
SERVERS = (Server("accounts", accounts),)
