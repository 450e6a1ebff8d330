"""Tool actions: each tool is a Cedar action in one group, and a policy about the group applies to every tool."""

from typing import Any

from policies.cedar.schema import TOOL_ACTION_GROUP

_ENTITY = {"type": "Action", "id": TOOL_ACTION_GROUP}
_ACTION = {"Var": "action"}
_LITERAL = {"Value": {"__entity": _ENTITY}}


def group_actions(policy: dict[str, Any]) -> dict[str, Any]:
    """Rewrites `action == Action::"callTool"` to `action in Action::"callTool"`, in the scope and in conditions, and `contains` likewise.

    Raises ValueError where a condition compares the group in a way that would silently never hold.
    """
    scope = policy["action"]
    if scope.get("op") == "==" and scope.get("entity") == _ENTITY:
        policy = {**policy, "action": {"op": "in", "entity": _ENTITY}}
    conditions = _rewrite_equality(policy["conditions"])
    if _uses_group_otherwise(conditions):
        raise ValueError(f'Action::"{TOOL_ACTION_GROUP}" stands for every tool; ask for it by: action in Action::"{TOOL_ACTION_GROUP}"')
    return {**policy, "conditions": conditions}


def _rewrite_equality(node: Any) -> Any:
    if isinstance(node, list):
        return [_rewrite_equality(item) for item in node]
    if not isinstance(node, dict):
        return node
    for operator in ("==", "!="):
        sides = node.get(operator)
        if isinstance(sides, dict) and _LITERAL in sides.values() and _ACTION in sides.values():
            inside = {"in": {"left": _ACTION, "right": _LITERAL}}
            return inside if operator == "==" else {"!": {"arg": inside}}
    match node:
        case {"contains": {"left": {"Set": list(members)}, "right": right}} if right == _ACTION and _LITERAL in members:
            return {"in": {"left": _ACTION, "right": {"Set": members}}}
    return {name: _rewrite_equality(value) for name, value in node.items()}


def _uses_group_otherwise(node: Any) -> bool:
    if isinstance(node, list):
        return any(_uses_group_otherwise(item) for item in node)
    if not isinstance(node, dict):
        return False
    inside = node.get("in")
    if isinstance(inside, dict) and inside.get("left") == _ACTION:
        return False
    return node == _LITERAL or any(_uses_group_otherwise(value) for value in node.values())
