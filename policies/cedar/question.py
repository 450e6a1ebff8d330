"""The policy engine's question and verdict, and the JSON that Cedar gets for a question."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from policies.cedar.syntax import action_and_group, ancestors_of
from policies.delegation.chain import Principal
from policies.delegation.rulings import Act

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class CedarQuestion:
    """Everything that a policy can see of an act. `tenant` is the resource's; `chain` names agents; `scopes` and `chain` become sets.

    `input` holds the arguments as parsed JSON, None without arguments; it is converted only where a policy reads it. `history` is what the
    transaction did before, for acts that `PolicyEngine.needs_history`.
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
    """The result of an evaluation. `policies` are the @ids that decided; none for the default denial.

    With `has_error`, something could not be evaluated: the verdict is a denial, `policies` are those that failed, `problem` says why. With
    `needs_approval`, only policies that people may lift forbid the act, and `policies` names them.
    """

    allowed: bool
    policies: tuple[str, ...] = ()
    has_error: bool = False
    needs_approval: bool = False
    problem: str = ""


def context_json(question: CedarQuestion, arguments: Any) -> str:
    """The context as Cedar JSON. `arguments` are Cedar values, see `cedar_value`."""
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
    """The entities of a question as Cedar JSON: the user with their roles, the resource with those above it, and the tool's action."""
    principal, act, above = question.principal, question.act, ancestors_of(question.act)
    action, group = action_and_group(act)
    where = {"tenant": question.tenant}
    user = {"tenant": principal.tenant, "issuer": principal.issuer, "subject": principal.subject}
    entities = [
        _entity(("User", principal.owner_key), user, [("Role", role) for role in principal.roles]),
        _entity((act.kind, act.resource), where | {"permission": act.permission}, above[:1]),
        *(_entity(each, where, above[number : number + 1]) for number, each in enumerate(above, 1)),
        *([_entity(action, {}, [group])] if group else []),
    ]
    return _encode(entities).decode()


def _entity(uid: tuple[str, str], attributes: dict[str, str], parents: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "uid": {"type": uid[0], "id": uid[1]},
        "attrs": attributes,
        "parents": [{"type": kind, "id": name} for kind, name in parents],
    }
