"""Each tool is an action of its own in a group; what operators write about the group means whatever is in it."""

from typing import Any

from policies.policy_schema import GROUP

_ENTITY = {"type": "Action", "id": GROUP}
_LITERAL = {"Value": {"__entity": _ENTITY}}


def grouped(policy: dict[str, Any]) -> dict[str, Any]:
    """`action == Action::"callTool"` -> `action in Action::"callTool"`, in the scope and in conditions."""
    scope = policy["action"]
    if scope.get("op") == "==" and scope.get("entity") == _ENTITY:
        policy = {**policy, "action": {"op": "in", "entity": _ENTITY}}
    return {**policy, "conditions": _within(policy["conditions"])}


def _within(node: Any) -> Any:
    if isinstance(node, list):
        return [_within(item) for item in node]
    if not isinstance(node, dict):
        return node
    for operator in ("==", "!="):
        sides = node.get(operator)
        if isinstance(sides, dict) and _LITERAL in sides.values() and {"Var": "action"} in sides.values():
            inside = {"in": {"left": {"Var": "action"}, "right": _LITERAL}}
            return inside if operator == "==" else {"!": {"arg": inside}}
    return {name: _within(value) for name, value in node.items()}
