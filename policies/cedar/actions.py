"""Each tool is an action of its own in a group; what operators write about the group means whatever is in it."""

from typing import Any

from policies.cedar.schema import GROUP

_ENTITY = {"type": "Action", "id": GROUP}
_ACTION = {"Var": "action"}
_LITERAL = {"Value": {"__entity": _ENTITY}}


def grouped(policy: dict[str, Any]) -> dict[str, Any]:
    """`action == Action::"callTool"` -> `action in Action::"callTool"`, in the scope and in conditions; a list's `contains` likewise.

    Raises ValueError where a condition compares the group in a way that would silently never hold.
    """
    scope = policy["action"]
    if scope.get("op") == "==" and scope.get("entity") == _ENTITY:
        policy = {**policy, "action": {"op": "in", "entity": _ENTITY}}
    conditions = _within(policy["conditions"])
    if _strays(conditions):
        raise ValueError(f'Action::"{GROUP}" stands for every tool; ask for it by: action in Action::"{GROUP}"')
    return {**policy, "conditions": conditions}


def _within(node: Any) -> Any:
    if isinstance(node, list):
        return [_within(item) for item in node]
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
    return {name: _within(value) for name, value in node.items()}


def _strays(node: Any) -> bool:
    if isinstance(node, list):
        return any(_strays(item) for item in node)
    if not isinstance(node, dict):
        return False
    inside = node.get("in")
    if isinstance(inside, dict) and inside.get("left") == _ACTION:
        return False
    return node == _LITERAL or any(_strays(value) for value in node.values())
