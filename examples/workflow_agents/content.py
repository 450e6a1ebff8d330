"""Content marketing, and the mail system of the examples: content-loop.yaml. Other workflows send their mail by it too."""

from collections.abc import Callable
from itertools import count
from typing import Any

from examples.workflow_agents.scripted import Agent, Given, Server

OPENED = (31, 38, 24, 40)  # per cent of the readers, of the first newsletters that are sent
UNFIT = "miracle"  # a word that the reviewer objects to; the writer of `clickbait` can't do without it


def write(given: Given) -> dict[str, Any]:
    """A newsletter on a topic; remarks of the reviewer are heeded, but for `clickbait`."""
    hype = f" It is a {UNFIT}!" if given["topic"] == "clickbait" or (given["round"] == 1 and not given["remarks"]) else ""
    text = f"Number {given['round']} on {given['topic']}.{hype}"
    return {"subject": f"{given['topic']} {given['round']}", "text": text, "confidence": 0.9}


def review(given: Given) -> dict[str, Any]:
    """Whether a newsletter may be sent."""
    remarks = f"the word {UNFIT} promises too much" if UNFIT in given["text"] else ""
    return {"approved": not remarks, "remarks": remarks, "confidence": 0.95}


def mail() -> list[Callable[..., Any]]:
    sent: list[dict[str, str]] = []
    newsletters: list[str] = []
    numbers = count(1)

    def send(to: str, subject: str, text: str) -> dict[str, str]:
        """Sends an e-mail."""
        sent.append({"to": to, "subject": subject, "text": text})
        return {"mail": f"M-{next(numbers)}"}

    def send_newsletter(audience: str, subject: str, text: str) -> dict[str, str]:
        """Sends an e-mail to everybody in an audience."""
        newsletters.append(subject)
        sent.append({"to": audience, "subject": subject, "text": text})
        return {"newsletter": f"N-{len(newsletters)}"}

    def read_engagement(newsletter: str) -> dict[str, int]:
        """How many of 100 readers opened a newsletter."""
        return {"opened": OPENED[(int(newsletter.removeprefix("N-")) - 1) % len(OPENED)]}

    def list_sent() -> dict[str, list[dict[str, str]]]:
        """Every e-mail that was sent."""
        return {"sent": sent}

    return [send, send_newsletter, read_engagement, list_sent]


AGENTS = (
    Agent("content-writer", "Writes newsletters.", write),
    Agent("content-review", "Says whether a newsletter may be sent.", review, speaks="0.3"),
)
SERVERS = (Server("mail", mail),)
