"""The story of a decision: told alike by the refusal itself, by /api/decisions and by `interlock why`."""

from typing import Any

from policies.grant import Decision

REASONS = {
    "allowed": "The user, every agent in the chain and the policies allow it.",
    "own-task": "Whoever a task belongs to may have it stopped.",
    "user-lacks-permission": "Neither a role of the user nor a policy permits it.",
    "scope-missing": "The token, or the authority handed on by the calling agent, does not cover it.",
    "ceiling-exceeded": "An agent in the chain may not do it for anybody.",
    "policy-forbids": "A policy forbids it.",
    "policy-error": "A policy could not be evaluated, so it is refused.",
    "killed": "An operator has stopped it.",
    "token-expired": "The token has expired.",
    "loop": "The agent is in the chain already.",
    "too-deep": "The chain of agents is as long as it may get.",
}


ACTS = {
    "invokeAgent": "delegate to the agent",
    "callTool": "call the tool",
    "getPrompt": "get the prompt",
    "readResource": "read resources of",
    "registerAgent": "administer",
    "readAudit": "read",
    "writePolicy": "change",
}


def story(decision: Decision) -> dict[str, Any]:
    """The shape of GET /api/decisions/{id}."""
    return {
        "id": decision.id,
        "allowed": decision.allowed,
        "reason_id": decision.reason_id,
        "reason": REASONS.get(decision.reason_id, decision.reason_id),
        "principal": decision.principal,
        "roles": list(decision.roles),
        "chain": [{"agent": link.agent, "permissions": list(link.permissions)} for link in decision.chain],
        "action": decision.act.action,
        **({"verb": decision.act.verb} if decision.act.verb else {}),
        "resource": decision.act.resource,
        "policies": list(decision.policies),
        "missing": list(decision.missing),
        "task_id": decision.task_id,
    }


def sentence(decision: Decision) -> str:
    """One line for whoever was refused."""
    who = decision.principal.split("|", 2)[-1]
    through = " > ".join(link.agent for link in decision.chain)
    chain = f" through {through}" if through else ""
    what = f"{decision.act.verb.replace('-', ' ') or ACTS.get(decision.act.action, decision.act.action)} {decision.act.resource}"
    because = REASONS.get(decision.reason_id, decision.reason_id)
    missing = f" Missing: {', '.join(decision.missing)}." if decision.missing else ""
    policies = f" Policies: {', '.join(decision.policies)}." if decision.policies and not decision.allowed else ""
    return f"{who}{chain} may not {what}. {because}{missing}{policies} Decision {decision.id}."
