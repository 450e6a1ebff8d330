"""What a policy reads of the arguments: by which paths, and which of them it takes for decimals."""

from collections.abc import Iterator, Mapping
from typing import Any

from policies.argument_types import Path
from policies.cedar_values import decimal_value
from policies.policy_syntax import nodes

WHOLE: Path = ()
_METHODS = ("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual")
_SAME = ("==", "!=", "contains", "containsAll", "containsAny")


def input_paths(policy: Mapping[str, Any]) -> set[Path]:
    """`context.input.a.b` and `context.input has a` -> ("a", "b"), ("a",). WHOLE where they are looked at otherwise."""
    return set(_paths(policy["conditions"]))


def decimal_paths(policy: Mapping[str, Any]) -> set[Path]:
    """Those that are compared as decimals, or looked for among decimals: a Long is never equal to one, and Cedar would not say so."""
    found: set[Path] = set()
    for node in nodes(policy["conditions"]):
        for name, operands in node.items():
            if name in _METHODS and isinstance(operands, list):
                found |= {path for one in _compared(operands) if (path := _path(one))}
            elif name in _SAME and isinstance(operands, dict):
                sides = list(_compared([operands.get("left"), operands.get("right")]))
                if any(isinstance(side, dict) and "decimal" in side for side in sides):
                    found |= {path for side in sides if (path := _path(side))}
    return found


def _compared(operands: list[Any]) -> Iterator[Any]:
    """The expressions that operands come down to: members of a list that is written out, both ends of an `if`."""
    for operand in operands:
        match operand:
            case {"Set": list(members)}:
                yield from _compared(members)
            case {"if-then-else": {"then": one, "else": other}}:
                yield from _compared([one, other])
            case _:
                yield operand


def with_decimals(arguments: Any, paths: set[Path]) -> Any:
    """Arguments as Cedar values, in which whole numbers at these paths, or in lists there, are decimals: JSON knows one kind of number."""
    for path in paths:
        holder = arguments
        for name in path[:-1]:
            holder = holder.get(name) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and path[-1] in holder:
            holder[path[-1]] = _as_decimal(holder[path[-1]])
    return arguments


def _as_decimal(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_decimal(item) for item in value]
    return decimal_value(f"{value}.0") if type(value) is int else value


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
