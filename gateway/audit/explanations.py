"""The explanation of a decision, the same in refusals, in /api/decisions and in `interlock why`."""

from typing import Any

from gateway.audit.fact_texts import explain_facts, fact_documents
from policies.authority import WRITE_REGISTRY
from policies.delegation.rulings import STATE_ACTIONS, Act, Decision

EVENTS_PREFIX = "events/"

REASONS = {
    "allowed": "The user, every agent in the chain and the policies allow it.",
    "own-task": "The owner of a task may cancel it.",
    "operator-cancels": "An operator cancels the task of another person, as an earlier decision allows.",
    "turn-under-way": "The turn was allowed when it began, and its grant still holds; another process of the gateway goes on with it.",
    "user-lacks-permission": "Neither a role of the user nor a policy permits it.",
    "scope-missing": "The token, or the authority handed on by the calling agent, does not cover it.",
    "ceiling-exceeded": "The ceiling of an agent in the chain does not allow it.",
    "memory-not-enabled": "The entry of the acting agent does not let it use memory so; an operator sets `memory` there.",
    "policy-forbids": "A policy forbids it.",
    "policy-error": "A policy could not be evaluated, so it is refused.",
    "delegated-administration": "Administration needs a user's own token; no agent may do it on a user's behalf.",
    "killed": "An operator has stopped it.",
    "token-expired": "The token has expired.",
    "loop": "The agent is in the chain already.",
    "too-deep": "The chain of agents has reached its maximum length.",
    "approval-needed": "It needs an approval first.",
    "approval-denied": "An approver has denied it.",
    "unknown": "Nothing with this name can be called.",
    "approval-unknown": "There is no such approval.",
    "approval-expired": "The approval has expired.",
    "approval-used": "The approval has been used; it is valid for one act.",
    "approval-other-act": "The approval is for something else.",
    "approval-other-arguments": "The approval is for other arguments.",
    "approval-other-definition": "The definition has changed since it was approved.",
    "approval-other-task": "The approval is for another task.",
    "approval-other-chain": "The approval is for another chain of agents.",
    "approval-too-large": "The arguments are too large to be shown to the approvers.",
    "sensitivity-exceeds-clearance": "Its result is more sensitive than an agent in the chain may receive.",
    "taint-exceeds-clearance": "The transaction has read data more sensitive than the receiver may get.",
    "claim-denied": "Another holder has claimed the subject, with at least the same priority.",
    "cool-down": "The subject rests after the last claim on it.",
    "under-way": "The same is being done to the subject, and is not to be done twice.",
    "not-countable": "An argument that a policy adds up is not a whole number of 0 or more.",
}


ACTION_PHRASES = {
    "invokeAgent": "delegate to the agent",
    "callTool": "call the tool",
    "getPrompt": "get the prompt",
    "readResource": "read resources of",
    "registerAgent": "administer",
    "readAudit": "read the",
    "readMemory": "read memory of the scope",
    "writeMemory": "write memory of the scope",
    "readState": "read the key",
    "writeState": "write the key",
    "writePolicy": "change",
}


LOOKS = {
    "see-run": "see runs of other people",
    "list-runs": "list the runs of all people",
    "see-task": "see tasks of other people",
    "list-tasks": "list the tasks of all people",
    "cancel-task": "cancel tasks of other people",
    "list-claims": "list the claims of all people",
    "list-conflicts": "list the conflicts of all people",
    "read-costs": "read the costs of all people",
    "read-policies": "read the policies in force",
    "read-settings": "read the settings in force",
    "export-audit": "export the",
    "verify-audit": "verify the",
    "decide-held-value": "decide on values that are held back",
}


STATE_PHRASES = {  # by verb, of acts on keys of the board
    "take-claim": "take a claim by the key",
    "list": "list the values below",
    "watch": "watch the values below",
    "history": "read the history of the key",
    "delete": "delete the key",
}


def describe_act(act: Act) -> str:
    """Returns an act in words, as they follow "may not". Keys below `events/` stand for types of events."""
    if act.verb in LOOKS:
        return LOOKS[act.verb]
    if act.permission == WRITE_REGISTRY.permission and act.resource == WRITE_REGISTRY.resource:
        return f"{act.verb or 'administer'} agents, servers or workflows"
    if act.action in STATE_ACTIONS and act.resource.startswith(EVENTS_PREFIX):
        phrase = "receive events of the type" if act.action == "readState" else "send events of the type"
        return f"{phrase} {act.resource.removeprefix(EVENTS_PREFIX)}"
    phrase = STATE_PHRASES.get(act.verb, "") if act.action in STATE_ACTIONS else ""
    phrase = phrase or act.verb.replace("-", " ") or ACTION_PHRASES.get(act.action, act.action)
    return f"{phrase} {act.resource}"


def decision_document(decision: Decision, *, shows_all: bool = False) -> dict[str, Any]:
    """Returns the body of GET /api/decisions/{id}. `shows_all`: with the people whose facts it rests on, for readers of the audit."""
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
        **({"subject": decision.subject, "effect": decision.effect} if decision.subject else {}),
        **({"facts": fact_documents(decision, shows_all=shows_all)} if decision.facts else {}),
        **({"approval": decision.approval, "approvers": list(decision.approvers)} if decision.approval else {}),
    }


def explain_refusal(decision: Decision) -> str:
    """Returns a refusal in one line, for the refused caller."""
    who = decision.principal.split("|", 2)[-1]
    through = " > ".join(link.agent for link in decision.chain)
    chain = f" through {through}" if through else ""
    act_text = describe_act(decision.act)
    because = REASONS.get(decision.reason_id, decision.reason_id)
    missing = f" Missing: {', '.join(decision.missing)}." if decision.missing else ""
    policies = f" Policies: {', '.join(decision.policies)}." if decision.policies and not decision.allowed else ""
    problem = f" Problem: {decision.problem}." if decision.problem else ""
    facts = f" {explain_facts(decision)}" if decision.facts else ""
    return f"{who}{chain} may not {act_text}. {because}{missing}{policies}{problem}{facts} Decision {decision.id}."
