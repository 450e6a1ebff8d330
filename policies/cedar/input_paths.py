"""The arguments that a policy reads: their paths, and which of them it compares with decimals."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from policies.cedar.argument_types import Path
from policies.cedar.syntax import json_objects
from policies.cedar.values import NotExpressible, decimal_value

WHOLE_INPUT: Path = ()
_DECIMAL_METHODS = ("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual")
_EQUALITY_OPERATORS = ("==", "!=", "contains", "containsAll", "containsAny")


def input_paths(policy: Mapping[str, Any]) -> set[Path]:
    """`context.input.a.b` and `context.input has a` -> ("a", "b"), ("a",). WHOLE_INPUT where the arguments are read in another way."""
    return set(_paths(policy["conditions"]))


def decimal_paths(policy: Mapping[str, Any]) -> set[Path]:
    """The paths that are compared with decimals, or looked up among them. In Cedar a Long never equals a decimal, without an error."""
    found: set[Path] = set()
    for name, sides in _comparisons(policy):
        if name in _DECIMAL_METHODS or any("decimal" in side for side in sides):
            found |= _paths_among(sides)
    return found


def non_decimal_paths(policy: Mapping[str, Any]) -> set[Path]:
    """The paths that are compared with whole numbers, or with each other.

    If another policy compares such a path with decimals, the value can't be both.
    """
    found: set[Path] = set()
    for name, sides in _comparisons(policy):
        paths = _paths_among(sides)
        has_integer = any(type(side.get("Value")) is int for side in sides)
        if name in _EQUALITY_OPERATORS and (has_integer or (len(paths) > 1 and not any("decimal" in side for side in sides))):
            found |= paths
    return found


def check_decimals(policy: Mapping[str, Any]) -> None:
    """Raises ValueError where a decimal is compared with an expression that hides the argument: it would never equal a whole number."""
    for name, sides in _comparisons(policy):
        decimals = any("decimal" in side for side in sides)
        if name in _EQUALITY_OPERATORS and any(_hides_decimal(side, decimals) for side in sides):
            raise ValueError(
                'a decimal is compared indirectly: compare it with the argument itself, as in context.input.a == decimal("1.0")'
            )


def _comparisons(policy: Mapping[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yields the operator of each comparison, and the expressions on both of its sides."""
    for node in json_objects(policy["conditions"]):
        for name, operands in node.items():
            if name in _DECIMAL_METHODS and isinstance(operands, list):
                yield name, list(_flatten_operands(operands))
            elif name in _EQUALITY_OPERATORS and isinstance(operands, dict):
                yield name, list(_flatten_operands([operands.get("left"), operands.get("right")]))


def _paths_among(sides: list[dict[str, Any]]) -> set[Path]:
    return {path for side in sides if (path := _access_path(side))}


def _hides_decimal(side: dict[str, Any], decimals: bool) -> bool:
    """Whether the side is a record that contains a decimal or, with `decimals`, a member of anything but a plain chain of names."""
    if "Record" in side:
        return any("decimal" in each for each in json_objects(side))
    inner: Any = side
    while isinstance(inner, dict) and "." in inner:
        inner = inner["."]["left"]
    return decimals and inner is not side and "Var" not in inner


def _flatten_operands(operands: list[Any]) -> Iterator[dict[str, Any]]:
    """Yields the expressions of operands: the members of a literal set, and both branches of an `if`."""
    for operand in operands:
        match operand:
            case {"Set": list(members)}:
                yield from _flatten_operands(members)
            case {"if-then-else": {"then": one, "else": other}}:
                yield from _flatten_operands([one, other])
            case dict():
                yield operand


def with_decimals(arguments: Any, paths: Collection[Path], integer_paths: Collection[Path] = ()) -> Any:
    """Replaces whole numbers at `paths`, or in lists there, by Cedar decimals: JSON has one kind of number.

    Changes `arguments` (Cedar values) in place. Raises NotExpressible for a path that is also in `integer_paths`, since it can't be both.
    """
    for path in paths:
        holder = arguments
        for name in path[:-1]:
            holder = holder.get(name) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and path[-1] in holder:
            value = holder[path[-1]]
            try:
                holder[path[-1]] = _as_decimal(value)
            except NotExpressible as error:
                raise NotExpressible(str(error), path) from None
            if path in integer_paths and holder[path[-1]] != value:
                raise NotExpressible("policies compare the same number with decimals and with whole numbers", path)
    return arguments


def _as_decimal(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_decimal(item) for item in value]
    return decimal_value(f"{value}.0") if type(value) is int else value


def _paths(node: Any) -> Iterator[Path]:
    """Yields the longest path of each access, and none of its prefixes."""
    if isinstance(node, list):
        for item in node:
            yield from _paths(item)
    elif isinstance(node, dict):
        path = _access_path(node) if (has_path := _has_path(node)) is None else has_path
        if path is not None:
            yield path
        elif not _is_other_context_access(node):
            if node.get("Var") == "context":
                yield WHOLE_INPUT
            for value in node.values():
                yield from _paths(value)


def _has_path(node: Mapping[str, Any]) -> Path | None:
    """`context.input.a has b` -> ("a", "b")."""
    match node:
        case {"has": {"left": left, "attr": str(attribute)}} if len(node) == 1:
            base = _access_path(left)
            return None if base is None else (*base, attribute)
    return None


def _is_other_context_access(node: Mapping[str, Any]) -> bool:
    """Whether the node reads another attribute of the context, or only tests whether one exists."""
    match node:
        case {"has": {"left": {"Var": "context"}}} | {".": {"left": {"Var": "context"}}} if len(node) == 1:
            return True
    return False


def _access_path(node: Any) -> Path | None:
    """`context.input.a` -> ("a",); None for anything else."""
    match node:
        case {".": {"left": {"Var": "context"}, "attr": "input"}} if len(node) == 1:
            return WHOLE_INPUT
        case {".": {"left": left, "attr": str(attribute)}} if len(node) == 1:
            base = _access_path(left)
            return None if base is None else (*base, attribute)
    return None
