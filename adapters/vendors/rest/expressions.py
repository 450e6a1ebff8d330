"""Expressions of operators for places in JSON: JSON Pointers and bounded JMESPath, to read and to write values."""

import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import lru_cache
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError

LENGTH_MAX: Final = 500
NODES_MAX: Final = 60  # of a parsed expression
COPIES_MAX: Final = 8  # how often a result may contain the same value: pipes of lists would double it each time
SEPARATOR_MAX: Final = 16  # characters of a separator of `join`
FUNCTIONS: Final = (
    *("contains", "ends_with", "join", "keys", "length", "map", "max_by", "merge", "min_by", "not_null"),
    *("reverse", "sort", "sort_by", "starts_with", "sum", "to_array", "to_number", "type", "values"),
)
FindValue = Callable[[Any], Any]


class BadExpression(ValueError):
    """The text is not a valid expression; the message is safe to show."""


@lru_cache(maxsize=4096)
def compile_expression(text: str) -> FindValue:
    """Compiles a JSON Pointer (RFC 6901), which is empty or begins with a slash, or else a JMESPath expression.

    The function returns None where there is no value, or a value of another form. Raises BadExpression.
    """
    if len(text) > LENGTH_MAX:
        raise BadExpression(f"is longer than {LENGTH_MAX} characters")
    if not text or text.startswith("/"):
        steps = _parse_pointer(text)
        return lambda value: _value_at(value, steps)
    try:
        expression = jmespath.compile(text)
    except (JMESPathError, RecursionError, ValueError) as error:
        raise BadExpression("is neither a JSON Pointer nor a JMESPath expression") from error
    _check_cost(expression.parsed)
    return lambda value: _search(expression, value)


def _search(expression: Any, value: Any) -> Any:
    try:
        return expression.search(value)
    except JMESPathError:
        return None


def fill_template(template: Any, expressions: Mapping[str, str], context: Any) -> Any:
    """A copy of `template`, in which each pointer gets the value of its expression in `context`, unless that is None."""
    made = deepcopy(template)
    for pointer, expression in expressions.items():
        value = compile_expression(expression)(context)
        if value is not None:
            made = _put_at(made, _parse_pointer(pointer), value)
    return made


def check_pointer_fits(template: Any, pointer: str) -> None:
    """Raises BadExpression unless a value can be written at the pointer."""
    _put_at(deepcopy(template), _parse_pointer(pointer), "")


def _parse_pointer(pointer: str) -> tuple[str, ...]:
    if (pointer and not pointer.startswith("/")) or re.search(r"~(?![01])", pointer) or len(pointer) > LENGTH_MAX:
        raise BadExpression("is not a JSON Pointer")
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def _value_at(value: Any, steps: tuple[str, ...]) -> Any:
    for step in steps:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and (place := _list_index(step)) is not None and place < len(value):
            value = value[place]
        else:
            return None
    return value


def _list_index(step: str) -> int | None:
    return int(step) if re.fullmatch(r"0|[1-9][0-9]{0,8}", step) else None


def _put_at(target: Any, steps: tuple[str, ...], value: Any) -> Any:
    """Writes a value. Creates missing objects on the way, but no lists. Raises BadExpression."""
    if not steps:
        return value
    step, rest = steps[0], steps[1:]
    if target is None:
        target = {}
    if isinstance(target, dict):
        target[step] = _put_at(target.get(step), rest, value)
    elif isinstance(target, list) and (place := _list_index(step)) is not None and place < len(target):
        target[place] = _put_at(target[place], rest, value)
    else:
        raise BadExpression("leads to no place in the body")
    return target


def _walk_nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("children", ()):
        if isinstance(child, dict):
            yield from _walk_nodes(child)


def _check_cost(tree: Mapping[str, Any]) -> None:
    """Raises BadExpression for an expression that may cost more than one pass over the value."""
    nodes, copies = 0, 1
    for node in _walk_nodes(tree):
        nodes += 1
        if node["type"] in ("multi_select_list", "multi_select_dict"):
            copies *= max(len(node["children"]), 1)
        if node["type"] == "function_expression":
            _check_function(node)
    if nodes > NODES_MAX or copies > COPIES_MAX:
        raise BadExpression("is too complex: simplify it")


def _check_function(call: Mapping[str, Any]) -> None:
    if call["value"] not in FUNCTIONS:
        raise BadExpression(f"uses a function other than: {', '.join(FUNCTIONS)}")
    glue = call["children"][0] if call["value"] == "join" and call["children"] else None
    if glue is not None and not (glue["type"] == "literal" and len(str(glue["value"])) <= SEPARATOR_MAX):
        raise BadExpression(f"must join with a literal of at most {SEPARATOR_MAX} characters")
