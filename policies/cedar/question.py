"""What the policy engine is asked and what it answers, and the JSON that Cedar gets to see of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from policies.cedar.syntax import action_and_group, parent_of
from policies.delegation.principal import Principal
from policies.delegation.rulings import Act

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class CedarQuestion:
    """All that a policy can see. `tenant` is where the resource lives, `scopes` and `chain` become sets, `chain` names agents.

    `input` holds the arguments as parsed JSON, None where there are none; it is looked at only where a policy reads it. `history` is what
    the errand did before, for acts that `PolicyEngine.recalls`.
    """

    principal: Principal
    act: Act
    tenant: str
    scopes: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()
    depth: int = 0
    task: str = ""
    input: Mapping[str, Any] | None = None
    history: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`policies`: the @ids that decided, none for the default denial. `error`: something could not be evaluated, so it is a denial;
    then `policies` are those that failed, and `problem` says why.

    `asks`: all that stands in the way are policies that people may lift, which `policies` names.
    """

    allowed: bool
    policies: tuple[str, ...] = ()
    has_error: bool = False
    needs_approval: bool = False
    problem: str = ""


def context_json(question: CedarQuestion, arguments: Any) -> str:
    """The context as Cedar JSON. `arguments` in the form of cedar_values."""
    context: dict[str, Any] = {
        "tenant": question.tenant,
        "scopes": question.scopes,
        "chain": question.chain,
        "depth": question.depth,
        "task": question.task,
    }
    if arguments is not None:
        context["input"] = arguments
    if question.history is not None:
        context["history"] = question.history
    return _encode(context).decode()


def entities_json(question: CedarQuestion) -> str:
    """The few entities that a question is about, as Cedar JSON: the user in their roles, the resource in its parent."""
    principal, act, parent = question.principal, question.act, parent_of(question.act)
    action, group = action_and_group(act)
    where = {"tenant": question.tenant}
    user = {"tenant": principal.tenant, "issuer": principal.issuer, "subject": principal.subject}
    entities = [
        _entity(("User", principal.owner_key), user, [("Role", role) for role in principal.roles]),
        _entity((act.kind, act.resource), where | {"permission": act.permission}, [parent] if parent else []),
        *([_entity(parent, where, [])] if parent else []),
        *([_entity(action, {}, [group])] if group else []),
    ]
    return _encode(entities).decode()


def _entity(uid: tuple[str, str], attributes: dict[str, str], parents: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "uid": {"type": uid[0], "id": uid[1]},
        "attrs": attributes,
        "parents": [{"type": kind, "id": name} for kind, name in parents],
    }
