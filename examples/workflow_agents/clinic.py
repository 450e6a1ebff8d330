"""A clinic, its records and an insurer: clinic-visit.yaml and insurance-claim.yaml."""

from collections.abc import Callable
from typing import Any

from examples.workflow_agents.scripted import Agent, Failed, Given, Server, refuse

HISTORIES = {"PT-1": ["asthma"], "PT-2": ["penicillin allergy", "depression"]}
POLICIES = {"PT-1": "POL-77", "PT-2": "POL-78"}
TARIFF = {"spirometry": 12_000, "allergy-test": 8_000, "rare-therapy": 900_000}  # cents
FINDINGS = {"wheezing": ("asthma attack", 0.91), "rash": ("allergic reaction", 0.88)}
CLEAR_CLAIM = 500_000  # cents: above, the insurer can't say


def diagnose(given: Given) -> dict[str, Any]:
    """A finding for symptoms; without any that it knows, a doubtful one."""
    found = next((found for sign, found in FINDINGS.items() if sign in given["symptoms"]), ("unclear", 0.3))
    return {"finding": found[0], "confidence": found[1]}


def summarize(given: Given) -> dict[str, Any]:
    """A summary for the patient's records, and after how many days the patient comes back."""
    known = ", ".join(given["history"]) or "no earlier conditions"
    return {"text": f"{given['finding']}; known: {known}", "days": 14, "confidence": 0.9}


def decide(given: Given) -> dict[str, Any]:
    """How much of a treatment the insurer pays."""
    if more := sorted(given.keys() - {"policy", "code", "cents"}):
        raise Failed(f"the insurer must not get {', '.join(more)}")
    sure = 0.9 if given["cents"] <= CLEAR_CLAIM else 0.2
    return {"covered_cents": given["cents"] * 8 // 10, "confidence": sure}


def records() -> list[Callable[..., Any]]:
    summaries: dict[str, str] = {}

    def read_history(patient: str) -> dict[str, list[str]]:
        """The conditions of a patient."""
        if patient not in HISTORIES:
            raise refuse(f"there is no patient {patient}")
        return {"conditions": HISTORIES[patient]}

    def read_policy(patient: str) -> dict[str, str]:
        """The insurance policy of a patient."""
        return {"policy": POLICIES.get(patient, "")}

    def write_summary(visit: str, text: str) -> dict[str, str]:
        """Writes the summary of a visit."""
        summaries[visit] = text
        return {"visit": visit}

    def show_summary(visit: str) -> dict[str, str]:
        """The summary of a visit."""
        return {"text": summaries.get(visit, "")}

    return [read_history, read_policy, write_summary, show_summary]


def practice() -> list[Callable[..., Any]]:
    def estimate(treatment: str) -> dict[str, int]:
        """What a treatment costs, in cents."""
        if treatment not in TARIFF:
            raise refuse(f"the tariff has no {treatment}")
        return {"cents": TARIFF[treatment]}

    def book(visit: str, days: int) -> dict[str, str]:
        """Books a follow-up so many days after a visit."""
        return {"appointment": f"{visit} + {days} days"}

    return [estimate, book]


AGENTS = (
    Agent("diagnostics", "Finds what symptoms point to.", diagnose),
    Agent("visit-summary", "Summarizes visits for the records.", summarize),
    Agent("insurer", "Says how much of a treatment is paid.", decide, speaks="0.3"),
)
SERVERS = (Server("records", records), Server("practice", practice))
