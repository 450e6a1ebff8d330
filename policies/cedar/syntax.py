"""What a Cedar policy says, read from its JSON form: what it applies to, whether it looks at the arguments, what is misspelt."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from policies.cedar.role_rules import ACTIONS, ADMINISTER
from policies.cedar.schema import ATTRIBUTES, CONTEXT, GROUP, TYPES
from policies.delegation.rulings import SERVED, Act

Uid = tuple[str, str]
_HISTORY = {".": {"left": {"Var": "context"}, "attr": "history"}}
_CALLS = {".": {"left": _HISTORY, "attr": "calls"}}


def parent_of(act: Act) -> Uid | None:
    """The entity above the resource: the server of a tool, the agent of a skill. Who administers an entry acts on that alone."""
    if act.action == ADMINISTER:
        return None
    parent = ("Server" if act.kind in SERVED else act.kind, act.parent)
    return None if parent == (act.kind, act.resource) else parent


def may_apply(policy: Mapping[str, Any], act: Act) -> bool:
    """Whether the policy's scope fits the action and the resource; what is not understood fits."""
    lineage = [(act.kind, act.resource), parent_of(act)]
    return fits(policy["action"], actions_of(act)) and fits(policy["resource"], lineage)


def actions_of(act: Act) -> tuple[Uid, Uid | None]:
    """The action that Cedar is asked about and what it is in: each tool has one of its own, in the group of all."""
    if act.action == GROUP:
        return ("Action", act.resource), ("Action", GROUP)
    return ("Action", act.action), None


def fits(scope: Mapping[str, Any], lineage: Sequence[Uid | None]) -> bool:
    """`lineage` holds the uid itself and then what it is in."""
    match scope:
        case {"op": "==", "entity": entity}:
            return _uid(entity) == lineage[0]
        case {"op": "in", "entity": entity}:
            return _uid(entity) in lineage
        case {"op": "in", "entities": entities}:
            return any(_uid(entity) in lineage for entity in entities)
        case {"op": "is", "entity_type": kind, **rest}:
            within = rest.get("in")
            return bool(lineage[0] and lineage[0][0] == kind) and (within is None or fits({"op": "in", **within}, lineage))
    return True


def reads(node: Any, wanted: str) -> bool:
    """Whether an expression may look at this attribute of `context`: any use of `context` but for reading another one of it."""
    if isinstance(node, list):
        return any(reads(item, wanted) for item in node)
    if not isinstance(node, dict):
        return False
    if node.get("Var") == "context":
        return True
    attribute = _context_attribute(node)
    return attribute == wanted if attribute else any(reads(value, wanted) for value in node.values())


def reads_input(node: Any) -> bool:
    """Whether an expression may look at the arguments."""
    return reads(node, "input")


def _context_attribute(node: Mapping[str, Any]) -> str:
    """`context.x` or `context has x` -> `x`; anything else -> the empty string."""
    match node:
        case {".": {"left": {"Var": "context"}, "attr": str(attribute)}} if len(node) == 1:
            return attribute
        case {"has": {"left": {"Var": "context"}, "attr": str(attribute)}} if len(node) == 1:
            return attribute
    return ""


def counted_call(node: Mapping[str, Any]) -> str:
    """`context.history.calls["x"]`, or `has` of it -> `x`; anything else -> the empty string."""
    match node:
        case {".": {"left": left, "attr": str(name)}} | {"has": {"left": left, "attr": str(name)}} if left == _CALLS:
            return name
    return ""


def assumed(rules: Mapping[str, dict[str, Any]], blind: Collection[str], favourable: bool) -> dict[str, dict[str, Any]]:
    """What is left when these attributes of `context` are not known: whatever depends on them taken as best for the caller, or worst."""
    kept = {}
    for key, policy in rules.items():
        parts = [part for condition in policy["conditions"] for part in _parts(condition["kind"], condition["body"])]
        clear = [part for part in parts if not any(reads(part, name) for name in blind)]
        if len(clear) == len(parts) or (policy["effect"] == "permit") == favourable:
            kept[key] = policy | {"conditions": clear}
    return kept


def _parts(kind: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """`when { a && b }` is `when { a } when { b }`, and `unless { a || b }` is `unless { a } unless { b }`."""
    match (kind, body):
        case ("when", {"&&": sides}) | ("unless", {"||": sides}):
            yield from _parts(kind, sides["left"])
            yield from _parts(kind, sides["right"])
        case _:
            yield {"kind": kind, "body": body}


def misspelt(policy: Mapping[str, Any]) -> str:
    """The first name that nothing will ever have, so that the policy would silently never apply; else the empty string."""
    for node in spoken(policy):
        attribute = _context_attribute(node)
        if attribute and attribute not in CONTEXT:
            return f"context has no attribute {attribute!r}{meant(attribute, CONTEXT)}; it has {', '.join(sorted(CONTEXT))}"
        variable, attribute = _variable_attribute(node)
        if attribute and attribute not in ATTRIBUTES[variable]:
            known = sorted(ATTRIBUTES[variable])
            return f"{variable} has no attribute {attribute!r}{meant(attribute, known)}; it has {', '.join(known)}"
        kind, name = node.get("type", node.get("entity_type")), node.get("id")
        if isinstance(kind, str) and kind not in TYPES and ("entity_type" in node or isinstance(name, str)):
            return f"there is no entity type {kind!r}; there are {', '.join(sorted(TYPES))}"
        if kind == "Action" and isinstance(name, str) and name not in ACTIONS and "." not in name:
            return (
                f"there is no action {name!r}{meant(name, ACTIONS)}; there are {', '.join(sorted(ACTIONS))}, and server.tool for each tool"
            )
    return ""


def meant(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, where something is near."""
    near = get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _variable_attribute(node: Mapping[str, Any]) -> tuple[str, str]:
    """`principal.x` or `resource has x` -> which of them, and x."""
    match node:
        case {".": {"left": {"Var": "principal" | "resource" as variable}, "attr": str(attribute)}} if len(node) == 1:
            return variable, attribute
        case {"has": {"left": {"Var": "principal" | "resource" as variable}, "attr": str(attribute)}} if len(node) == 1:
            return variable, attribute
    return "", ""


def idle(policy: Mapping[str, Any], roles: Collection[str]) -> Iterator[str]:
    """What is said of every person and role that nobody will ever be or have."""
    for node in spoken(policy):
        match node:
            case {"type": "User", "id": str(name)} if name.count("|") < 2:
                yield f'User::"{name}" is nobody: a user\'s id is tenant|issuer|subject; write principal.subject == "{name}"'
            case {"type": "Role", "id": str(name)} if name not in roles:
                yield f'Role::"{name}" has no permissions in `roles`; an issuer may still vouch for it'


def spoken(policy: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every object of a policy but its annotations, which anybody may write as they like."""
    yield from nodes([part for name, part in policy.items() if name != "annotations"])


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of a JSON tree."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from nodes(item)


def _uid(entity: Mapping[str, str]) -> Uid:
    return (entity["type"], entity["id"])
