"""The way of a decision: the person's rights, the token, the ceiling of each agent and the policies, and which of them stops the act."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from policies.delegation.permissions import BadPermission, Permissions


@dataclass(frozen=True, slots=True)
class Gate:
    """One thing that must permit an act. `outcome`: passes, stops here, asks, or not reached where an earlier gate decided."""

    title: str
    outcome: str
    explanation: str
    permissions: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """The colour of the gate."""
        return {"passes": "good", "stops here": "bad"}.get(self.outcome, "plain")


def draw_gates(decision: Mapping[str, Any]) -> list[Gate]:
    """Returns the gates of a decision document in the order of the intersection."""
    return [*_person_gates(decision), *_agent_gates(decision), _policy_gate(decision)]


def _missing_at(decision: Mapping[str, Any], place: str) -> list[str]:
    """Returns what was missing at a place such as `user` or `agent sales`; entries look like `tool:crm.read (user)`."""
    suffix = f" ({place})"
    return [text.removesuffix(suffix) for text in decision["missing"] if text.endswith(suffix)]


def _person_gates(decision: Mapping[str, Any]) -> Iterator[Gate]:
    subject = decision["principal"].split("|", 2)[-1]
    roles = tuple(decision.get("roles") or ())
    lacks = _missing_at(decision, "user") or (["the permission"] if decision["reason_id"] == "user-lacks-permission" else [])
    words = f"lacks {', '.join(lacks)}" if lacks else "by roles or by policies" if not roles else "by the roles"
    yield Gate(f"Rights of {subject}", "stops here" if lacks else "passes", words, roles)
    scope = tuple(decision.get("scope") or ("*",))
    lacks = _missing_at(decision, "token")
    words = "covers all that the person may do" if scope == ("*",) else "is narrowed to"
    yield Gate("Scope of the token", "stops here" if lacks else "passes", f"lacks {', '.join(lacks)}" if lacks else words, scope)


def _agent_gates(decision: Mapping[str, Any]) -> Iterator[Gate]:
    for link in decision["chain"]:
        permissions = tuple(link["permissions"])
        lacks = _missing_at(decision, f"agent {link['agent']}")
        covered = not decision.get("permission") or _covers(permissions, decision["permission"])
        words = f"its ceiling lacks {', '.join(lacks)}" if lacks else "can do at most, for this person" if permissions else "can do nothing"
        outcome = "stops here" if lacks else "passes" if covered or decision["allowed"] else "not reached"
        yield Gate(f"Agent {link['agent']}", outcome, words, permissions)


def _policy_gate(decision: Mapping[str, Any]) -> Gate:
    policies = tuple(decision["policies"])
    reason = decision["reason_id"]
    if decision["allowed"]:
        return Gate("Policies", "passes", "permit it", policies)
    if reason == "approval-needed":
        return Gate("Policies", "asks", "ask people first", policies)
    if decision["missing"]:
        return Gate("Policies", "not reached", "an earlier gate decided", policies)
    return Gate("Policies", "stops here", decision.get("reason", ""), policies)


def _covers(permissions: tuple[str, ...], wanted: str) -> bool:
    try:
        return Permissions.parse(permissions).covers(wanted)
    except BadPermission:
        return False


def suggest_change(decision: Mapping[str, Any]) -> str:
    """Returns what would allow a refused act, or an empty text where nothing simple would."""
    permission = decision.get("permission", "")
    subject = decision["principal"].split("|", 2)[-1]
    agent = next((link["agent"] for link in decision["chain"] if _missing_at(decision, f"agent {link['agent']}")), "")
    match decision["reason_id"]:
        case "user-lacks-permission":
            return f"Give a role of {subject} the permission {permission}: roles in interlock.yaml, or a policy that permits it."
        case "scope-missing":
            return f"Ask with a token whose scope covers {permission}."
        case "ceiling-exceeded" if agent:
            return f"Raise the ceiling of the agent {agent}: interlock agent set {agent} --ceiling … {permission}"
        case "approval-needed":
            return "Have it approved, then repeat exactly the same request."
        case "killed":
            return "An operator lifts the stop: interlock kill list"
    return ""
