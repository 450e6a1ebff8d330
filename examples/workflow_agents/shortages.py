"""Promotions, the chatbot and the forecast of a shop: stock-out.yaml."""

from collections.abc import Callable
from typing import Any

from examples.workflow_agents.scripted import Agent, Failed, Given, Server

PROMOTIONS = {"SKU-7": ["SPRING"], "SKU-9": ["AUTUMN", "OUTLET"]}
OUT_OF_REACH = "SKU-404"  # the agent of the promotions fails when it is asked about this article


def promote(given: Given) -> dict[str, Any]:
    """Pauses the promotions of an article, or resumes those that it is told to."""
    if given["sku"] == OUT_OF_REACH:
        raise Failed("the system of the promotions is down")
    if given["action"] == "resume":
        return {"promotions": given["promotions"]}
    return {"promotions": PROMOTIONS.get(given["sku"], [])}


def chatbot() -> list[Callable[..., Any]]:
    facts: dict[str, str] = {}

    def set_fact(sku: str, fact: str) -> dict[str, str]:
        """Sets what the chatbot says about an article."""
        facts[sku] = fact
        return {"fact": fact}

    def list_facts() -> dict[str, dict[str, str]]:
        """What the chatbot says about which article."""
        return {"facts": facts}

    return [set_fact, list_facts]


def forecast() -> list[Callable[..., Any]]:
    excluded: set[str] = set()

    def exclude(sku: str) -> dict[str, str]:
        """Leaves an article out of the forecast: sales of none are not a lack of demand."""
        excluded.add(sku)
        return {"sku": sku}

    def include(sku: str) -> dict[str, str]:
        """Takes an article into the forecast again."""
        excluded.discard(sku)
        return {"sku": sku}

    def list_excluded() -> dict[str, list[str]]:
        """The articles that the forecast leaves out."""
        return {"excluded": sorted(excluded)}

    return [exclude, include, list_excluded]


AGENTS = (Agent("promotions", "Pauses and resumes promotions of articles.", promote),)
SERVERS = (Server("chatbot", chatbot), Server("forecast", forecast))
