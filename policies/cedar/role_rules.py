"""Role rules: each permission of a role becomes a Cedar permit in JSON form, so that no name needs quoting."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from policies.delegation.permissions import BadPermission, Permissions

ADMINISTER_ACTION = "registerAgent"
ACTION_BY_PREFIX: Mapping[str, str] = {
    "agent:": "invokeAgent",
    "tool:": "callTool",
    "resource:": "readResource",
    "prompt:": "getPrompt",
    "state:read:": "readState",
    "state:write:": "writeState",
    "memory:read:": "readMemory",
    "memory:write:": "writeMemory",
    "workflow:": "runWorkflow",
    "registry:": ADMINISTER_ACTION,
    "approval:": "decideApproval",
    "audit:": "readAudit",
    "policy:": "writePolicy",
}
ACTIONS = frozenset(ACTION_BY_PREFIX.values())
_ALL = {"op": "All"}


def role_policies(roles: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Yields one Cedar policy (JSON form) for each role and permission, annotated @id("role:NAME"). Raises BadPermission."""
    for role, patterns in sorted(roles.items()):
        for pattern in sorted(Permissions.parse(patterns).patterns):
            yield {
                "effect": "permit",
                "principal": {"op": "in", "entity": _entity_reference("Role", role)},
                "annotations": {"id": f"role:{role}"},
                **_scope_of_pattern(pattern),
            }


def _scope_of_pattern(pattern: str) -> dict[str, Any]:
    """The action, resource and conditions that permit what `pattern` covers in `Permissions.covers`, or less."""
    if pattern == "*":
        return {"action": _ALL, "resource": _ALL, "conditions": []}
    actions = [action for family, action in ACTION_BY_PREFIX.items() if pattern.startswith(family) or pattern == _wildcard_of(family)]
    if not actions:
        raise BadPermission(pattern)
    scope: dict[str, Any] = {"action": {"op": "in", "entities": [_entity_reference("Action", action) for action in actions]}}
    family, _, rest = pattern.partition(":")
    if rest == "*":
        return scope | {"resource": _ALL, "conditions": []}
    resource = _resource_scope(family, rest)
    return scope | {"resource": resource or _ALL, "conditions": [] if resource else [_permission_condition(pattern)]}


def _wildcard_of(family: str) -> str:
    """`state:read:` -> `state:*`, the pattern that covers reading and writing."""
    return family.partition(":")[0] + ":*"


def _resource_scope(family: str, rest: str) -> dict[str, Any] | None:
    """A resource scope that expresses the pattern fully: an agent with its skills, one tool or prompt, or all of a server; else None."""
    if family == "agent" and "*" not in rest:
        return {"op": "in", "entity": _entity_reference("Agent", rest)}
    if family in ("tool", "prompt") and "*" not in rest:
        return {"op": "==", "entity": _entity_reference(family.capitalize(), rest)}
    if family in ("tool", "prompt") and rest.count(".") == 1 and rest.endswith(".*"):
        return {"op": "in", "entity": _entity_reference("Server", rest[:-2])}
    return None


def _permission_condition(pattern: str) -> dict[str, Any]:
    """A `when` condition: `resource.permission like "stem*"`, or for a full name: that name or any name below it after a slash."""
    permission = {".": {"left": {"Var": "resource"}, "attr": "permission"}}
    stem = pattern[:-1] if pattern.endswith("*") else pattern + "/"
    like = {"like": {"left": permission, "pattern": [{"Literal": letter} for letter in stem] + ["Wildcard"]}}
    if pattern.endswith("*"):
        return {"kind": "when", "body": like}
    same = {"==": {"left": permission, "right": {"Value": pattern}}}
    return {"kind": "when", "body": {"||": {"left": same, "right": like}}}


def _entity_reference(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}
