"""Values held against the types of an SDK that is generated with pydantic models for answers and typed dictionaries for requests."""

import datetime
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, NotRequired, Required

from pydantic import BaseModel, ValidationError
from typing_extensions import get_type_hints, is_typeddict


def model_problems(model: Any, value: Any) -> list[str]:
    """What a model, or the member of a union of models that has the value's `type`, finds wrong."""
    chosen = _by_tag(model, value)
    if chosen is None:
        return [f"the SDK knows no {value.get('type') if isinstance(value, dict) else value}"]
    try:
        chosen.model_validate(value)
    except ValidationError as error:
        return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:5]]
    return []


def param_problems(wanted: Any, value: Any, path: str = "body") -> Iterator[str]:
    """Where a request is not what the SDK's types say, unknown members included."""
    wanted = _bare(wanted)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted in (Any, object):
        return
    if origin in (typing.Union, types.UnionType):
        yield from _of_union([each for each in arguments if each is not type(None) or value is None], value, path)
    elif origin is typing.Literal:
        if value not in arguments:
            yield f"{path} is {value!r}, which is none of {arguments}"
    elif is_typeddict(wanted):
        yield from _of_members(wanted, value, path)
    elif isinstance(origin, type):
        yield from _of_collection(origin, arguments, value, path)
    elif isinstance(wanted, type) and not _is_plain(wanted, value):
        yield f"{path} is {value!r}, which is no {wanted.__name__}"


def _of_collection(origin: type, arguments: tuple[Any, ...], value: Any, path: str) -> Iterator[str]:
    if issubclass(origin, Mapping):
        if not isinstance(value, dict):
            yield f"{path} is no object"
    elif not isinstance(value, list):
        yield f"{path} is no list"
    else:
        for place, each in enumerate(value):
            yield from param_problems(arguments[0], each, f"{path}[{place}]")


def _of_members(wanted: Any, value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{path} is no object"
        return
    hints = {_alias(name, hint): hint for name, hint in get_type_hints(wanted, include_extras=True).items()}
    if not hints:  # a type without members stands for any object
        return
    required = {_alias(name, hints.get(name)) for name in wanted.__required_keys__}
    yield from (f"{path}.{name} is missing" for name in sorted(required - value.keys()))
    for name, each in value.items():
        if name in hints:
            yield from param_problems(hints[name], each, f"{path}.{name}")
        else:
            yield f"{path}.{name} is unknown to {wanted.__name__}"


def _of_union(choices: list[Any], value: Any, path: str) -> Iterator[str]:
    found = [list(param_problems(choice, value, path)) for choice in choices]
    if found and all(found):
        yield from min(found, key=_remoteness)


def _remoteness(problems: list[str]) -> tuple[bool, int, int]:
    """Sorts the choices of a union: first those whose `type` is the value's, then those whose problems stand deepest."""
    deepest = max(len(problem.partition(" ")[0]) for problem in problems)
    return any(".type is " in problem for problem in problems), -deepest, len(problems)


def _alias(name: str, hint: Any) -> str:
    while typing.get_origin(hint) in (Required, NotRequired):
        hint = typing.get_args(hint)[0]
    marks = getattr(hint, "__metadata__", ())
    return next((mark.alias for mark in marks if getattr(mark, "alias", None)), name)


def _bare(wanted: Any) -> Any:
    while typing.get_origin(wanted) in (typing.Annotated, Required, NotRequired) or hasattr(wanted, "__value__"):
        wanted = wanted.__value__ if hasattr(wanted, "__value__") else typing.get_args(wanted)[0]
    return wanted


def _is_plain(wanted: type, value: Any) -> bool:
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted is datetime.datetime:
        return isinstance(value, str)
    return isinstance(value, wanted)


def _by_tag(model: Any, value: Any) -> type[BaseModel] | None:
    """The model of a union whose `type` is that of the value; a single model as itself."""
    model = _bare(model)
    if isinstance(model, type):
        return model
    for each in typing.get_args(model):
        inner = _bare(each)
        if not isinstance(inner, type):
            found = _by_tag(inner, value)
            if found is not None:
                return found
        elif isinstance(value, dict) and value.get("type") in typing.get_args(_bare(inner.model_fields["type"].annotation)):
            return inner
    return None
