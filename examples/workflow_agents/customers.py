"""Sales and the customer database: new-customer.yaml."""

from collections.abc import Callable
from itertools import count
from typing import Any

from examples.workflow_agents.scripted import Agent, Given, Server, refuse

SEATS_MIN = 10
PRICE = 12  # EUR a seat and month
DAYS = ("Monday", "Tuesday")


def qualify(given: Given) -> dict[str, Any]:
    """Whether a lead is large enough."""
    fits = given["seats"] >= SEATS_MIN
    return {"fits": fits, "reason": f"{given['seats']} seats, {SEATS_MIN} are needed", "confidence": 0.85}


def propose(given: Given) -> dict[str, Any]:
    """A proposal with its price."""
    monthly = given["seats"] * PRICE
    return {"text": f"Dear {given['lead']}, {given['seats']} seats are {monthly} EUR a month.", "monthly": monthly, "confidence": 0.9}


def crm() -> list[Callable[..., Any]]:
    """`L-2` has an open escalation, which `close_escalation` closes; there are as many kickoffs as DAYS."""
    escalations = {"L-2": 1}
    accounts: dict[str, str] = {}
    sent: list[str] = []
    days = list(DAYS)
    numbers = count(301)

    def open_escalations(customer: str) -> dict[str, int]:
        """How many escalations of a customer are open."""
        return {"open": escalations.get(customer, 0)}

    def close_escalation(customer: str) -> dict[str, int]:
        """Closes the escalations of a customer."""
        return {"closed": escalations.pop(customer, 0)}

    def send_proposal(customer: str, text: str) -> dict[str, int]:
        """Sends a proposal, and says how many were sent to this customer."""
        sent.append(customer)
        return {"sent": sent.count(customer)}

    def create_account(customer: str, seats: int) -> dict[str, str]:
        """Opens an account."""
        account = f"A-{next(numbers)}"
        accounts[account] = "open"
        return {"account": account}

    def close_account(account: str) -> dict[str, str]:
        """Closes an account."""
        accounts[account] = "closed"
        return {"account": account}

    def show_account(account: str) -> dict[str, str]:
        """Whether an account is open or closed."""
        return {"account": account, "state": accounts.get(account, "unknown")}

    def book_kickoff(account: str, contact: str) -> dict[str, str]:
        """Books a day for the first meeting."""
        if not contact:
            raise refuse("a kickoff needs a contact")
        if not days:
            raise refuse("no day is free")
        return {"day": days.pop(0)}

    return [open_escalations, close_escalation, send_proposal, create_account, close_account, show_account, book_kickoff]


AGENTS = (
    Agent("lead-scout", "Says whether a lead fits.", qualify),
    Agent("proposal-writer", "Writes proposals.", propose, speaks="0.3"),
)
SERVERS = (Server("crm", crm),)
