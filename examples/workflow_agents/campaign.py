"""Marketing, its report writer and the books of finance: campaign-report.yaml."""

from collections.abc import Callable
from itertools import count
from typing import Any

from examples.workflow_agents.scripted import Agent, Given, Server

SPENT = {"spring": 1200, "autumn": 900}  # EUR
LEADS = {"spring": 40, "autumn": 30}


def write(given: Given) -> dict[str, Any]:
    """A report, and how much the books differ from what was spent."""
    each = given["spent"] // max(1, given["leads"])
    report = f"The campaign {given['campaign']} cost {given['spent']} EUR and brought {given['leads']} leads, {each} EUR each."
    return {"report": report, "difference": given["spent"] - given["booked"], "confidence": 0.9}


def finance() -> list[Callable[..., Any]]:
    booked = {"spring": 1000, "autumn": 900}
    numbers = count(9001)

    def read_spend(campaign: str) -> dict[str, int]:
        """What a campaign cost, and what is booked of it."""
        return {"spent": SPENT.get(campaign, 0), "booked": booked.get(campaign, 0)}

    def post_entry(campaign: str, amount: int) -> dict[str, str]:
        """Posts an entry to the books of a campaign."""
        booked[campaign] = booked.get(campaign, 0) + amount
        return {"entry": f"E-{next(numbers)}"}

    return [read_spend, post_entry]


def marketing() -> list[Callable[..., Any]]:
    def count_leads(campaign: str) -> dict[str, int]:
        """How many leads a campaign brought."""
        return {"leads": LEADS.get(campaign, 0)}

    return [count_leads]


AGENTS = (Agent("report-writer", "Writes reports on campaigns.", write),)
SERVERS = (Server("finance", finance), Server("marketing", marketing))
