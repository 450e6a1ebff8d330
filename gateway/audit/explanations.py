"""The story of a decision: told alike by the refusal itself, by /api/decisions and by `interlock why`."""

from typing import Any

from policies.delegation.rulings import Decision

REASONS = {
    "allowed": "The user, every agent in the chain and the policies allow it.",
    "own-task": "Whoever a task belongs to may have it stopped.",
    "turn-under-way": "The turn was allowed when it began, and its grant still holds; another process of the gateway goes on with it.",
    "user-lacks-permission": "Neither a role of the user nor a policy permits it.",
    "scope-missing": "The token, or the authority handed on by the calling agent, does not cover it.",
    "ceiling-exceeded": "An agent in the chain may not do it for anybody.",
    "policy-forbids": "A policy forbids it.",
    "policy-error": "A policy could not be evaluated, so it is refused.",
    "delegated-administration": "Only a person administers, with a token of their own, and no agent on their behalf.",
    "killed": "An operator has stopped it.",
    "token-expired": "The token has expired.",
    "loop": "The agent is in the chain already.",
    "too-deep": "The chain of agents is as long as it may get.",
    "approval-needed": "People have to allow it first.",
    "approval-denied": "Somebody who may decide has denied it.",
    "unknown": "There is nothing of this name that can be called.",
    "approval-unknown": "There is no such approval.",
    "approval-expired": "The approval is too old.",
    "approval-used": "The approval has been used; it is good for one act.",
    "approval-other-act": "The approval is for something else.",
    "approval-other-arguments": "The approval is for other arguments.",
    "approval-other-definition": "The definition has changed since it was approved.",
    "approval-other-task": "The approval is for another task.",
    "approval-other-chain": "The approval is for another chain of agents.",
    "approval-too-large": "The arguments are too large to be shown to whoever has to approve of them.",
    "sensitivity-exceeds-clearance": "What it tells is more sensitive than an agent in the chain may know.",
    "taint-exceeds-clearance": "The errand has seen what is more sensitive than its receiver may know.",
    "not-countable": "An argument that is added up is not a whole number from 0 on.",
}


ACTION_PHRASES = {
    "invokeAgent": "delegate to the agent",
    "callTool": "call the tool",
    "getPrompt": "get the prompt",
    "readResource": "read resources of",
    "registerAgent": "administer",
    "readAudit": "read",
    "writePolicy": "change",
}


def decision_document(decision: Decision) -> dict[str, Any]:
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
        **({"problem": decision.problem} if decision.problem else {}),
        **({"approval": decision.approval, "approvers": list(decision.approvers)} if decision.approval else {}),
    }


def explain_refusal(decision: Decision) -> str:
    """One line for whoever was refused."""
    who = decision.principal.split("|", 2)[-1]
    through = " > ".join(link.agent for link in decision.chain)
    chain = f" through {through}" if through else ""
    what = f"{decision.act.verb.replace('-', ' ') or ACTION_PHRASES.get(decision.act.action, decision.act.action)} {decision.act.resource}"
    because = REASONS.get(decision.reason_id, decision.reason_id)
    missing = f" Missing: {', '.join(decision.missing)}." if decision.missing else ""
    policies = f" Policies: {', '.join(decision.policies)}." if decision.policies and not decision.allowed else ""
    problem = f" Problem: {decision.problem}." if decision.problem else ""
    return f"{who}{chain} may not {what}. {because}{missing}{policies}{problem} Decision {decision.id}."
