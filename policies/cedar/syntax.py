"""Reads Cedar policies in JSON form: what a policy applies to, which attributes it reads, and which of its names are misspelt."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from policies.cedar.role_rules import ACTIONS, ADMINISTER_ACTION
from policies.cedar.schema import ATTRIBUTES, CONTEXT_ATTRIBUTES, ENTITY_TYPES, TOOL_ACTION_GROUP
from policies.delegation.rulings import SERVER_KINDS, STATE_ACTIONS, Act

Uid = tuple[str, str]
_HISTORY = {".": {"left": {"Var": "context"}, "attr": "history"}}
_SUBJECT = {".": {"left": {"Var": "principal"}, "attr": "subject"}}
_CALLS = {".": {"left": _HISTORY, "attr": "calls"}}


def ancestors_of(act: Act) -> list[Uid]:
    """The entities above the resource, the nearest first: the server of a tool, the agent of a skill, the prefixes of a key of the board.

    There is none for administration, which acts on one entry.
    """
    if act.action == ADMINISTER_ACTION:
        return []
    if act.action in STATE_ACTIONS:
        segments = act.resource.split("/")
        return [(act.kind, "/".join(segments[:count])) for count in range(len(segments) - 1, 0, -1)]
    parent = ("Server" if act.kind in SERVER_KINDS else act.kind, act.parent)
    return [] if parent == (act.kind, act.resource) else [parent]


def may_apply(policy: Mapping[str, Any], act: Act) -> bool:
    """Whether the policy's scope matches the action and the resource; a scope that is not understood matches."""
    lineage = [(act.kind, act.resource), *ancestors_of(act)]
    return scope_matches(policy["action"], action_and_group(act)) and scope_matches(policy["resource"], lineage)


def action_and_group(act: Act) -> tuple[Uid, Uid | None]:
    """The Cedar action of an act and its group: each tool has an action of its own, in the group of all tools."""
    if act.action == TOOL_ACTION_GROUP:
        return ("Action", act.resource), ("Action", TOOL_ACTION_GROUP)
    return ("Action", act.action), None


class ActClasses:
    """Groups acts that no policy tells apart: what Cedar answers for one act of a class, it answers for all of them, for one caller.

    An act belongs to its class by its action, the type of its resource, and the policies whose scopes name its resource, what is above
    that, or its own action. There are no classes where a policy may apply that looks at the act in its conditions.
    """

    def __init__(self, policies: Iterable[Mapping[str, Any]]) -> None:
        self._naming: dict[Uid, list[int]] = {}  # what scopes name -> the policies that name it
        self._policies = list(policies)
        self._distinguishing = [policy for policy in self._policies if _distinguishes_acts(policy)]
        self.tells_people_apart = any(map(_tells_people_apart, self._policies))
        for number, policy in enumerate(self._policies):
            for uid in {_uid_of(node) for node in json_objects([policy["action"], policy["resource"]]) if {"type", "id"} <= node.keys()}:
                self._naming.setdefault(uid, []).append(number)

    def class_of(self, act: Act, roles: Collection[str]) -> tuple[Any, ...] | None:
        """Returns the class of an act for a caller with these roles; None for an act that is ruled on by itself."""
        if self._distinguishing and any(_may_concern(policy, roles) and may_apply(policy, act) for policy in self._distinguishing):
            return None
        uids = ((act.kind, act.resource), ("Action", act.resource), *ancestors_of(act))  # `Action` names a tool
        if self._naming.keys().isdisjoint(uids):
            return act.action, act.kind, ()
        naming = {number for uid in uids for number in self._naming.get(uid, ())}
        return act.action, act.kind, tuple(sorted(number for number in naming if may_apply(self._policies[number], act)))


_UNDERSTOOD_SCOPES = ({"op"}, {"op", "entity"}, {"op", "entities"}, {"op", "entity_type"}, {"op", "entity_type", "in"})


def _distinguishes_acts(policy: Mapping[str, Any]) -> bool:
    """Whether a policy may tell acts apart otherwise than by the names in its scope: its conditions speak of the resource or the action."""
    scopes = (policy["action"], policy["resource"])
    return any(set(scope) not in _UNDERSTOOD_SCOPES for scope in scopes) or _looks_at_act(policy["conditions"])


def _tells_people_apart(policy: Mapping[str, Any]) -> bool:
    """Whether a policy may apply to one of two people with equal roles, and not to the other. Policies that ask only who is nobody do not.

    A condition may speak of the tenant, of roles, and of whether the subject is empty, which it never is.
    """
    match policy["principal"]:
        case {"op": "is", "in": {"entity": {"type": kind}}} if kind != "Role":
            return True
        case {"op": "All"} | {"op": "in", "entity": {"type": "Role"}} | {"op": "is", "entity_type": "User"}:
            return _looks_at_person(policy["conditions"])
    return True


def _looks_at_person(node: Any) -> bool:
    """Whether an expression uses `principal` or `context.task` in a way that may tell people with equal roles and tenants apart."""
    if isinstance(node, list):
        return any(map(_looks_at_person, node))
    if not isinstance(node, dict):
        return False
    match node:
        case {"is": {"left": {"Var": "principal"}, "in": above}}:
            return not _is_role(above)
        case {"has": {"left": {"Var": "principal"}}} | {"is": {"left": {"Var": "principal"}}}:
            return False
        case {"in": {"left": {"Var": "principal"}, "right": above}}:
            return not _is_role(above)
        case {"!=": {"left": subject, "right": {"Value": ""}}} if subject == _SUBJECT:
            return False
    if _variable_attribute(node) == ("principal", "tenant"):
        return False
    if node.get("Var") == "context" or _context_attribute(node) == "task":
        return True
    if _context_attribute(node):
        return False
    return node.get("Var") == "principal" or _names_an_entity(node) or any(map(_looks_at_person, node.values()))


def _looks_at_act(node: Any) -> bool:
    """Whether an expression uses `resource` or `action`, except for the resource's tenant, which all acts of a caller's list share."""
    if isinstance(node, list):
        return any(map(_looks_at_act, node))
    if not isinstance(node, dict):
        return False
    if _variable_attribute(node) == ("resource", "tenant"):
        return False
    return node.get("Var") in ("resource", "action") or _names_an_entity(node) or any(map(_looks_at_act, node.values()))


def _names_an_entity(node: Mapping[str, Any]) -> bool:
    """Whether an expression is an entity other than a role. Cedar has only the question's: `User::"x" has subject` is about a person."""
    return "__entity" in node and not _is_role({"Value": node})


def _is_role(expression: Any) -> bool:
    match expression:
        case {"Value": {"__entity": {"type": "Role"}}}:
            return True
    return False


def _may_concern(policy: Mapping[str, Any], roles: Collection[str]) -> bool:
    """Whether a policy's scope may match a principal with these roles."""
    match policy["principal"]:
        case {"op": "in", "entity": {"type": "Role", "id": name}}:
            return name in roles
    return True


def scope_matches(scope: Mapping[str, Any], lineage: Sequence[Uid | None]) -> bool:
    """Whether a scope matches an entity. `lineage` holds the entity's uid and then that of its group or parent."""
    match scope:
        case {"op": "==", "entity": entity}:
            return _uid_of(entity) == lineage[0]
        case {"op": "in", "entity": entity}:
            return _uid_of(entity) in lineage
        case {"op": "in", "entities": entities}:
            return any(_uid_of(entity) in lineage for entity in entities)
        case {"op": "is", "entity_type": kind, **rest}:
            within = rest.get("in")
            return bool(lineage[0] and lineage[0][0] == kind) and (within is None or scope_matches({"op": "in", **within}, lineage))
    return True


def reads_context(node: Any, attribute_name: str) -> bool:
    """Whether an expression may read this attribute of `context`: by its name, or by any use of `context` as a whole."""
    if isinstance(node, list):
        return any(reads_context(item, attribute_name) for item in node)
    if not isinstance(node, dict):
        return False
    if node.get("Var") == "context":
        return True
    attribute = _context_attribute(node)
    return attribute == attribute_name if attribute else any(reads_context(value, attribute_name) for value in node.values())


def reads_input(node: Any) -> bool:
    """Whether an expression may read the arguments."""
    return reads_context(node, "input")


def reads_facts(node: Any) -> bool:
    """Whether an expression may read the act's declared effect, or facts about its subject."""
    return any(reads_context(node, name) for name in ("effect", "subject", "facts"))


def _context_attribute(node: Mapping[str, Any]) -> str:
    """`context.x` or `context has x` -> `x`; anything else -> the empty string."""
    match node:
        case {".": {"left": {"Var": "context"}, "attr": str(attribute)}} if len(node) == 1:
            return attribute
        case {"has": {"left": {"Var": "context"}, "attr": str(attribute)}} if len(node) == 1:
            return attribute
    return ""


def counted_permission(node: Mapping[str, Any]) -> str:
    """`context.history.calls["x"]`, or `has` of it -> `x`; anything else -> the empty string."""
    match node:
        case {".": {"left": left, "attr": str(name)}} | {"has": {"left": left, "attr": str(name)}} if left == _CALLS:
            return name
    return ""


def assume_unknown(rules: Mapping[str, dict[str, Any]], unknown: Collection[str], favourable: bool) -> dict[str, dict[str, Any]]:
    """The policies with the conditions on unknown attributes of `context` removed.

    `favourable`: every removed condition is assumed to be best for the caller; otherwise worst. A policy that would go against that
    assumption is left out.
    """
    assumed = {}
    for key, policy in rules.items():
        parts = [part for condition in policy["conditions"] for part in _split_conditions(condition["kind"], condition["body"])]
        clear = [part for part in parts if not any(reads_context(part, name) for name in unknown)]
        if len(clear) == len(parts) or (policy["effect"] == "permit") == favourable:
            assumed[key] = policy | {"conditions": clear}
    return assumed


def _split_conditions(kind: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """`when { a && b }` is `when { a } when { b }`, and `unless { a || b }` is `unless { a } unless { b }`."""
    match (kind, body):
        case ("when", {"&&": sides}) | ("unless", {"||": sides}):
            yield from _split_conditions(kind, sides["left"])
            yield from _split_conditions(kind, sides["right"])
        case _:
            yield {"kind": kind, "body": body}


def find_misspelt_name(policy: Mapping[str, Any]) -> str:
    """Describes the first name that no entity, action or attribute has, so that the policy would never apply; else the empty string."""
    for node in policy_objects(policy):
        attribute = _context_attribute(node)
        if attribute and attribute not in CONTEXT_ATTRIBUTES:
            hint, known = spelling_hint(attribute, CONTEXT_ATTRIBUTES), ", ".join(sorted(CONTEXT_ATTRIBUTES))
            return f"context has no attribute {attribute!r}{hint}; it has {known}"
        variable, attribute = _variable_attribute(node)
        if attribute and attribute not in ATTRIBUTES[variable]:
            hint, known = spelling_hint(attribute, ATTRIBUTES[variable]), ", ".join(sorted(ATTRIBUTES[variable]))
            return f"{variable} has no attribute {attribute!r}{hint}; it has {known}"
        kind, name = node.get("type", node.get("entity_type")), node.get("id")
        if isinstance(kind, str) and kind not in ENTITY_TYPES and ("entity_type" in node or isinstance(name, str)):
            return f"there is no entity type {kind!r}; there are {', '.join(sorted(ENTITY_TYPES))}"
        if kind == "Action" and isinstance(name, str) and name not in ACTIONS and "." not in name:
            hint, known = spelling_hint(name, ACTIONS), ", ".join(sorted(ACTIONS))
            return f"there is no action {name!r}{hint}; there are {known}, and server.tool for each tool"
    return ""


def spelling_hint(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` if a known name is similar; else the empty string."""
    near = get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _variable_attribute(node: Mapping[str, Any]) -> tuple[str, str]:
    """`principal.x` or `resource has x` -> the variable, and x; anything else -> two empty strings."""
    match node:
        case {".": {"left": {"Var": "principal" | "resource" as variable}, "attr": str(attribute)}} if len(node) == 1:
            return variable, attribute
        case {"has": {"left": {"Var": "principal" | "resource" as variable}, "attr": str(attribute)}} if len(node) == 1:
            return variable, attribute
    return "", ""


def never_matching_principals(policy: Mapping[str, Any], roles: Collection[str]) -> Iterator[str]:
    """Yields a warning for each person or role in the policy that no principal can be or have."""
    for node in policy_objects(policy):
        match node:
            case {"type": "User", "id": str(name)} if name.count("|") < 2:
                yield f'User::"{name}" matches no principal: a user\'s id is tenant|issuer|subject; write principal.subject == "{name}"'
            case {"type": "Role", "id": str(name)} if name not in roles:
                yield f'Role::"{name}" has no permissions in `roles`; an issuer may still vouch for it'


def named_roles(policy: Mapping[str, Any]) -> Iterator[str]:
    """The names of all roles that a policy speaks of, in its scope and in its conditions."""
    for node in policy_objects(policy):
        match node:
            case {"type": "Role", "id": str(name)}:
                yield name


def policy_objects(policy: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields every object of a policy except its annotations, which are free text."""
    yield from json_objects([part for name, part in policy.items() if name != "annotations"])


def json_objects(node: Any) -> Iterator[dict[str, Any]]:
    """Yields every object of a JSON tree."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from json_objects(item)


def _uid_of(entity: Mapping[str, str]) -> Uid:
    return (entity["type"], entity["id"])
