"""What a policy reads of the arguments: by which paths, and which of them it takes for decimals."""

from collections.abc import Iterator, Mapping
from typing import Any

from policies.argument_types import Path
from policies.policy_syntax import nodes

WHOLE: Path = ()
_METHODS = ("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual")


def input_paths(policy: Mapping[str, Any]) -> set[Path]:
    """`context.input.a.b` and `context.input has a` -> ("a", "b"), ("a",). WHOLE where they are looked at otherwise."""
    return set(_paths(policy["conditions"]))


def decimal_paths(policy: Mapping[str, Any]) -> set[Path]:
    """Those that are compared as decimals."""
    found: set[Path] = set()
    for node in nodes(policy["conditions"]):
        for name, operands in node.items():
            if name in _METHODS and isinstance(operands, list):
                found |= {path for one in operands if (path := _path(one))}
            elif name in ("==", "!=") and isinstance(operands, dict):
                sides = (operands.get("left"), operands.get("right"))
                if any(isinstance(side, dict) and "decimal" in side for side in sides):
                    found |= {path for side in sides if (path := _path(side))}
    return found


def with_decimals(arguments: Any, paths: set[Path]) -> Any:
    """Arguments as Cedar values, in which whole numbers at these paths are decimals: JSON knows one kind of number."""
    for path in paths:
        holder = arguments
        for name in path[:-1]:
            holder = holder.get(name) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and type(holder.get(path[-1])) is int:
            holder[path[-1]] = {"__extn": {"fn": "decimal", "arg": f"{holder[path[-1]]}.0"}}
    return arguments


def _paths(node: Any) -> Iterator[Path]:
    """The longest path at each place, and no shorter one within it."""
    if isinstance(node, list):
        for item in node:
            yield from _paths(item)
    elif isinstance(node, dict):
        path = _path(node) if (asked := _asked(node)) is None else asked
        if path is not None:
            yield path
        elif not _beside(node):
            if node.get("Var") == "context":
                yield WHOLE
            for value in node.values():
                yield from _paths(value)


def _asked(node: Mapping[str, Any]) -> Path | None:
    """`context.input.a has b` -> ("a", "b")."""
    match node:
        case {"has": {"left": left, "attr": str(attribute)}} if len(node) == 1:
            base = _path(left)
            return None if base is None else (*base, attribute)
    return None


def _beside(node: Mapping[str, Any]) -> bool:
    """Whether it asks the context for something else than the arguments, or whether there are any."""
    match node:
        case {"has": {"left": {"Var": "context"}}} | {".": {"left": {"Var": "context"}}} if len(node) == 1:
            return True
    return False


def _path(node: Any) -> Path | None:
    """`context.input.a` -> ("a",); None for anything else."""
    match node:
        case {".": {"left": {"Var": "context"}, "attr": "input"}} if len(node) == 1:
            return WHOLE
        case {".": {"left": left, "attr": str(attribute)}} if len(node) == 1:
            base = _path(left)
            return None if base is None else (*base, attribute)
    return None
