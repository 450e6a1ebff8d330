"""Places in JSON that an operator names: JSON Pointers and bounded JMESPath, to read what is there and to put something there."""

import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from functools import lru_cache
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError

LENGTH_MAX: Final = 500
NODES_MAX: Final = 60  # of what an expression is parsed to
COPIES_MAX: Final = 8  # how often a result may have the same value, so that pipes of lists don't double without end
SEPARATOR_MAX: Final = 16  # characters between what is joined
FUNCTIONS: Final = (
    *("contains", "ends_with", "join", "keys", "length", "map", "max_by", "merge", "min_by", "not_null"),
    *("reverse", "sort", "sort_by", "starts_with", "sum", "to_array", "to_number", "type", "values"),
)
FindValue = Callable[[Any], Any]


class BadExpression(ValueError):
    """What an operator wrote is none; the text is safe to show."""


@lru_cache(maxsize=4096)
def compile_expression(text: str) -> FindValue:
    """A JSON Pointer (RFC 6901) begins with a slash, or is empty and means all; anything else is JMESPath.

    Where nothing is, and in a value of another shape, it finds None. Raises BadExpression.
    """
    if len(text) > LENGTH_MAX:
        raise BadExpression(f"is longer than {LENGTH_MAX} characters")
    if not text or text.startswith("/"):
        steps = _parse_pointer(text)
        return lambda value: _value_at(value, steps)
    try:
        expression = jmespath.compile(text)
    except (JMESPathError, RecursionError, ValueError) as error:
        raise BadExpression("is no JSON Pointer and no JMESPath expression") from error
    _check_cost(expression.parsed)
    return lambda value: _search(expression, value)


def _search(expression: Any, value: Any) -> Any:
    try:
        return expression.search(value)
    except JMESPathError:
        return None


def fill_template(template: Any, expressions: Mapping[str, str], context: Any) -> Any:
    """A copy of `template` with what the expressions find in `context` at the pointers that name them; what finds nothing leaves its
    place as it was.
    """
    made = deepcopy(template)
    for pointer, expression in expressions.items():
        value = compile_expression(expression)(context)
        if value is not None:
            made = _put_at(made, _parse_pointer(pointer), value)
    return made


def check_pointer_fits(template: Any, pointer: str) -> None:
    """Whether something can be put there. Raises BadExpression."""
    _put_at(deepcopy(template), _parse_pointer(pointer), "")


def _parse_pointer(pointer: str) -> tuple[str, ...]:
    if (pointer and not pointer.startswith("/")) or re.search(r"~(?![01])", pointer) or len(pointer) > LENGTH_MAX:
        raise BadExpression("is no JSON Pointer")
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
    """Objects that are not there yet are made on the way; lists are not."""
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
    """Raises BadExpression for what may cost more than a walk over the value."""
    nodes, copies = 0, 1
    for node in _walk_nodes(tree):
        nodes += 1
        if node["type"] in ("multi_select_list", "multi_select_dict"):
            copies *= max(len(node["children"]), 1)
        if node["type"] == "function_expression":
            _check_function(node)
    if nodes > NODES_MAX or copies > COPIES_MAX:
        raise BadExpression("does more than an expression may: make it simpler")


def _check_function(call: Mapping[str, Any]) -> None:
    if call["value"] not in FUNCTIONS:
        raise BadExpression(f"uses a function that is none of: {', '.join(FUNCTIONS)}")
    glue = call["children"][0] if call["value"] == "join" and call["children"] else None
    if glue is not None and not (glue["type"] == "literal" and len(str(glue["value"])) <= SEPARATOR_MAX):
        raise BadExpression(f"joins by something else than a literal of at most {SEPARATOR_MAX} characters")
