"""Facts that a refusal rests on, in words: since when, by which person or agent as far as the reader may know, and what to do."""

from typing import Any, Final

from gateway.state.subjects.names import key_prefix_of
from gateway.tasks.log import to_rfc3339
from policies.delegation.facts import FactNote
from policies.delegation.rulings import Decision

ADVICE_BY_KIND: Final = {
    "hold": "Ask for the hold to be lifted: {key}.",
    "opt-out": "Respect it until it is withdrawn: {key}.",
    "value": "It is the value {key}.",
}
KEYS: Final = {"hold": "holds/", "opt-out": "opt-outs/", "value": ""}


def fact_documents(decision: Decision, *, shows_all: bool = False) -> list[dict[str, Any]]:
    """The facts of a refusal as JSON. `shows_all`: for readers of the audit; others see people and agents of facts only of their own."""
    return [_document(decision, note, shows_all) for note in decision.facts]


def explain_facts(decision: Decision) -> str:
    """The facts of a refusal in one line, for the refused caller."""
    return " ".join(str(each["text"]) for each in fact_documents(decision))


def _document(decision: Decision, note: FactNote, shows_all: bool) -> dict[str, Any]:
    is_known = shows_all or note.owner == decision.principal
    return {
        "kind": note.kind,
        "name": note.name,
        "policy": note.policy,
        "since": to_rfc3339(note.since) if note.since else None,
        "until": to_rfc3339(note.until) if note.until else None,
        "set_by": note.owner if is_known else None,
        "agent": note.agent if is_known else None,
        "text": _sentence(decision.subject, note, _who(note, is_known)),
    }


def _who(note: FactNote, is_known: bool) -> str:
    if not is_known:
        return "another person's agent" if note.agent else "another person"
    person = note.owner.split("|", 2)[-1]
    return f"{note.agent} for {person}" if note.agent else person


def _sentence(subject: str, note: FactNote, who: str) -> str:
    since, until = to_rfc3339(note.since), to_rfc3339(note.until) if note.until else ""
    reason = f" ({note.text})" if note.text else ""
    key = f"{key_prefix_of(subject)}{KEYS.get(note.kind, '')}{note.name}"
    advice = ADVICE_BY_KIND.get(note.kind, "").format(key=key)
    end = f" until {until}" if until else ""
    again = f" Possible again from {until} on." if until else ""
    match note.kind:
        case "hold":
            return f"{subject} has the hold {note.name}{reason} since {since}{end}, set by {who}. {advice}"
        case "opt-out":
            return f"{subject} has opted out of {note.name}{reason} since {since}{end}, recorded by {who}. {advice}"
        case "claim":
            return f"{subject} is claimed since {since}{end} by {who}{reason}. Try again then, or with a higher priority."
        case "cool-down":
            return f"{subject} rests{end} after work of {who}{reason}.{again}"
        case "since-effect":
            return f"{note.name} was last done to {subject} at {since} by {who}.{again}"
        case "since-agent":
            return f"The agent {note.name} last acted on {subject} at {since}.{again}"
        case "under-way":
            return f"{note.name} is being done to {subject} since {since}{end} by {who}{reason}. Wait until it ends."
    return f"{subject} has the value {note.name} since {since}, set by {who}. {advice}"
