"""Says in plain English what is wrong with the shape of a document and of its JSON Schemas: at which place, and what is allowed there."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import islice
from types import UnionType
from typing import Any, Final, Union, get_args, get_origin

import jsonschema_rs
from pydantic import BaseModel, Tag
from pydantic_core import ErrorDetails

from gateway.workflows.dsl.constructs import RULES_OF_TEXTS
from gateway.workflows.dsl.document import KIND_MEMBERS, TaskBase, kind_of

Steps = tuple[str | int, ...]  # of a JSON pointer
READ_MAX: Final = 1000  # errors of the models; a value of several types has one for each type
OPTIONS_MAX: Final = 20  # names that one reason lists
KEY: Final = "[key]"  # the last step of an error about the name of a member
TYPES: Final = {  # pydantic's errors about the type of a value, and what the type is called
    "model_type": "object",
    "model_attributes_type": "object",
    "dict_type": "object",
    "list_type": "list",
    "string_type": "text",
    "bool_type": "boolean",
    "bool_parsing": "boolean",
    "int_type": "whole number",
    "int_parsing": "whole number",
    "int_from_float": "whole number",
    "int_parsing_size": "whole number",
    "float_type": "number",
    "float_parsing": "number",
    "decimal_type": "number",
    "decimal_parsing": "number",
    "is_instance_of": "number",
    "finite_number": "number",
}

JQ_ERROR: Final = "jq: error: "
UNDEFINED: Final = " is not defined"
PLACE_IN_JQ: Final = re.compile(r"line ([0-9]{1,6}), column ([0-9]{1,6})")
META_SCHEMA: Final = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")
WORDS_OF_TYPES: Final = {"array": "list", "integer": "whole number", "string": "text"}  # where they differ from JSON Schema's


def problems_of(model: type[BaseModel], data: Any, errors: Sequence[ErrorDetails]) -> Iterator[tuple[Steps, str]]:
    """The place and the reason of each problem of `data`, which `model` refused. A value of the wrong type has one problem."""
    found: dict[tuple[Steps, str], None] = {}
    expected: dict[Steps, list[str]] = {}
    around: set[Steps] = set()  # places of values with a problem within them, or with the right type
    for error in errors[:READ_MAX]:
        steps = _steps_to(data, error["loc"], is_missing=error["type"] == "missing")
        if error["type"] in TYPES:
            expected.setdefault(steps, []).append(_expected_of(error))
        else:
            found[steps, _reason_of(error, model, _value_at(data, steps))] = None
            around.add(steps)
        around.update(steps[:length] for length in range(len(steps)))
    yield from found
    for steps, types in expected.items():
        if steps not in around:
            is_unquoted = types == ["text"] and isinstance(_value_at(data, steps), bool | int | float)
            yield steps, f"is no {' and no '.join(dict.fromkeys(types))}{'; put it in quotes' if is_unquoted else ''}"


def schema_problems(schema: Any) -> Iterator[tuple[Steps, str]]:
    """The place and the reason of each problem of a JSON Schema."""
    names_dialect = isinstance(schema, Mapping) and "$schema" in schema
    found = [] if names_dialect else [*islice(_meta_schema().iter_errors(schema), READ_MAX)]
    yield from ((tuple(each.instance_path), _schema_reason(each)) for each in found)
    if not found:
        try:
            jsonschema_rs.validator_for(schema)
        except jsonschema_rs.ValidationError as error:
            yield tuple(error.instance_path), _schema_reason(error)
        except ValueError:
            yield (), "is no JSON Schema"


@cache
def _meta_schema() -> Any:
    return jsonschema_rs.validator_for({"$ref": META_SCHEMA}, validate_formats=True)


def _schema_reason(error: jsonschema_rs.ValidationError) -> str:
    """Why a JSON Schema is none."""
    kind: Any = error.kind
    match kind.name:
        case "anyOf" if error.instance_path[-1:] == ["type"]:
            return f"is no type of JSON Schema, which has {_listed(SCHEMA_TYPES)}{suggestion(error.instance, SCHEMA_TYPES)}"
        case "type":
            return f"is no {' and no '.join(WORDS_OF_TYPES.get(each, each) for each in kind.types)}"
        case "minimum":
            return f"is less than {kind.limit}"
        case "exclusiveMinimum":
            return f"is not more than {kind.limit}"
        case "minItems":
            return "is empty"
        case "uniqueItems":
            return "has the same element twice"
        case "format":
            return "is no regular expression"
        case "$ref" | "referencing":
            return "has a `$ref` or a `$schema` to what the document does not have"
    return "has a value that JSON Schema does not allow here"


def expression_reason(text: str, problem: str) -> str:
    """Why a text is no jq expression. `problem` is what jq said of the text within parentheses, on lines of their own."""
    if not problem.startswith(JQ_ERROR):
        return f"is no jq expression: {problem}"
    if UNDEFINED in problem:
        name = problem.removeprefix(JQ_ERROR).partition(UNDEFINED)[0]
        return f"is no jq expression: `{name}` is not defined here"
    place = PLACE_IN_JQ.search(problem)
    line, column = (int(place[1]) - 1, int(place[2])) if place else (0, 0)
    is_inside = 0 < line <= text.count("\n") + 1 and "end of file" not in problem
    return f"is no jq expression: its syntax is broken {f'at line {line}, character {column} of it' if is_inside else 'at its end'}"


def suggestion(name: object, known: Iterable[str]) -> str:
    """`; did you mean …?` where a known name is similar, else the empty text."""
    near = get_close_matches(str(name), list(known), 1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _expected_of(error: ErrorDetails) -> str:
    """The type of value that stands at a place, with the members that an object may have."""
    name = error.get("ctx", {}).get("class_name", "")
    model = next((each for each in _subclasses(BaseModel) if each.__name__ == name), None)
    if model is None:
        return TYPES[error["type"]]
    return f"object with {', '.join(f'`{member}`' for member in _members_of(model))}"


def _subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The models of documents."""
    for each in model.__subclasses__():
        if each.__module__.startswith("gateway.workflows."):
            yield each
            yield from _subclasses(each)


def _reason_of(error: ErrorDetails, model: type[BaseModel], value: Any) -> str:
    reason = _reason(error, model, value)
    return f"has a name that {reason}" if error["loc"] and error["loc"][-1] == KEY else reason


def _reason(error: ErrorDetails, model: type[BaseModel], value: Any) -> str:
    given: Mapping[str, Any] = error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return _unknown_member(str(error["loc"][-1]), _models_at(model, error["loc"][:-1]))
        case "missing":
            return f"lacks `{error['loc'][-1]}`"
        case "no_task":
            return _no_task(value)
        case "literal_error":
            return _no_option(value, str(given["expected"]).split("'")[1::2])
        case "string_pattern_mismatch":
            return RULES_OF_TEXTS.get(given["pattern"], "has characters that are not allowed here")
        case "value_error" | "no_step":  # whose texts are the models' own
            return error["msg"].removeprefix("Value error, ")
    return _bound_of(error["type"], given)


def _bound_of(kind: str, given: Mapping[str, Any]) -> str:
    """What a value exceeds or falls short of."""
    match kind:
        case "too_short" | "string_too_short" if given["min_length"] == 1:
            return "is empty"
        case "too_long" if given.get("field_type") == "Dictionary" and given["max_length"] == 1:
            return "has several members, and stands for one; write each as an item of the list, with `- ` before it"
        case "too_short" | "too_long":
            bound = f"fewer than {given['min_length']}" if kind == "too_short" else f"more than {given['max_length']}"
            return f"has {bound} members"
        case "string_too_short" | "string_too_long":
            bound = f"fewer than {given['min_length']}" if kind == "string_too_short" else f"more than {given['max_length']}"
            return f"has {bound} characters"
        case "greater_than_equal":
            return f"is less than {given['ge']}"
        case "less_than_equal":
            return f"is more than {given['le']}"
    return "has a value that is not allowed here"


def _unknown_member(name: str, models: Sequence[type[BaseModel]]) -> str:
    """Why a member is refused, and which ones are allowed beside it."""
    known = list(dict.fromkeys(member for model in models for member in _members_of(model)))
    if not known:
        return "is not known here"
    return f"is not known here; allowed are {_listed(known)}{suggestion(name, known)}"


def _no_option(value: Any, options: Sequence[str]) -> str:
    return f"is {'none of ' if len(options) > 1 else 'not '}{_listed(options)}{suggestion(value, options)}"


def _no_task(value: Any) -> str:
    """What a task lacks, and which member may have been meant."""
    wanted = f"is no task of the DSL: it has none of {_listed(KIND_MEMBERS)}"
    names = list(value) if isinstance(value, Mapping) else []
    near = (found for name in names if name not in _members_of(TaskBase) and (found := suggestion(name, KIND_MEMBERS)))
    return f"{wanted}{next(near, '')}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - OPTIONS_MAX} more" if len(names) > OPTIONS_MAX else ""
    return ", ".join(f"`{name}`" for name in names[:OPTIONS_MAX]) + more


def _members_of(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_at(model: type[BaseModel], location: Steps) -> list[type[BaseModel]]:
    """The models that read the value at the location of an error."""
    kinds: list[Any] = [model]
    for step in location:
        tagged = [_bare(kind) for kind in kinds if step in _tags_of(kind)]
        within = [following for kind in kinds for following in _types_within(kind, step)]
        named = [kind for kind in kinds if step == getattr(_bare(kind), "__name__", "")]
        kinds = tagged or within or named or kinds
    return [kind for each in kinds if isinstance(kind := _bare(each), type) and issubclass(kind, BaseModel)]


def _types_within(kind: Any, step: str | int) -> list[Any]:
    """The types that a member or an element of a type may have."""
    kind = _bare(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = kind.model_fields
        return [each for name, field in fields.items() if step in (name, field.alias) for each in _alternatives(field.annotation)]
    if get_origin(kind) is list and isinstance(step, int):
        return _alternatives(get_args(kind)[0])
    return _alternatives(get_args(kind)[1]) if get_origin(kind) is dict and isinstance(step, str) else []


def _alternatives(kind: Any) -> list[Any]:
    """The types of a value that may have one of several, each with what is annotated to it."""
    bare = _bare(kind)
    return [found for each in get_args(bare) for found in _alternatives(each)] if get_origin(bare) in (Union, UnionType) else [kind]


def _bare(kind: Any) -> Any:
    """A type without what is annotated to it."""
    return get_args(kind)[0] if hasattr(kind, "__metadata__") else kind


def _tags_of(kind: Any) -> list[str]:
    """By which tag the location of an error calls one of several types."""
    return [each.tag for each in getattr(kind, "__metadata__", ()) if isinstance(each, Tag)]


def _steps_to(data: Any, location: Steps, *, is_missing: bool) -> Steps:
    """Where an error is. Between the steps of a location stand names of models, which are no members of the data."""
    steps: list[str | int] = []
    at_item = False
    for step in location[:-1] if is_missing else location:
        if isinstance(data, dict) and at_item and step == kind_of(data):
            at_item = False
        elif isinstance(data, dict) and step in data:
            is_element = bool(steps) and isinstance(steps[-1], int)
            at_item = (isinstance(data[step], dict) and len(data) == 1 and is_element) or steps[-1:] == ["functions"]
            steps.append(step)
            data = data[step]
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            steps.append(step)
            data = data[step]
    return tuple(steps)


def _value_at(data: Any, steps: Steps) -> Any:
    for step in steps:
        data = data[step]
    return data
