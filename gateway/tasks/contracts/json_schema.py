"""Whether a value fits a JSON Schema that a stranger wrote: nothing is fetched, no pattern is run, and the work is bounded."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

STEPS_MAX: Final = 2_000  # references that are followed for one value
RULES_MAX: Final = 100_000  # rules that are asked about one value
SIZE_MAX: Final = 1 << 16  # bytes of one schema that is taken in
DEPTH_MAX: Final = 32
SAID_MAX: Final = 300  # characters
_UNREAD: Final = ("pattern", "patternProperties")  # a stranger's expressions may take for ever; whoever wrote them checks them
_REFERENCES: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_NOWHERE: Final[Registry[Any]] = Registry()
_TRIALS: Final[tuple[Any, ...]] = (
    None,
    "",
    0,
    [],
    [None],
    {},
)  # find a schema out that nobody can afford
_canonical = msgspec.json.Encoder(order="deterministic").encode
Rule = Callable[[Any, Any, Any, Any], Iterator[ValidationError]]


class BadSchema(Exception):
    """Not a schema, or one that nobody can afford to follow."""


def problem_of(schema: Mapping[str, Any], value: Any) -> str:
    """Which rule a value breaks, and at which path, in no words of a stranger's; empty: it fits. Raises BadSchema."""
    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError) as error:
        raise BadSchema(type(error).__name__) from error
    path, rule = broken_rule(schema, value)
    return f"{path} breaks the rule `{rule}`" if rule else ""


def broken_rule(schema: Mapping[str, Any], value: Any) -> tuple[str, str]:
    """Path (from `$`) and name of the first rule that a value breaks; empty: none. Of a schema that `check` has taken. Raises BadSchema."""
    try:
        first = next(_checker()(schema, registry=_NOWHERE).iter_errors(value), None)
    except (SchemaError, Unresolvable, RecursionError) as error:
        raise BadSchema(type(error).__name__) from error
    return ("", "") if first is None else (first.json_path[:SAID_MAX], str(first.validator))


def check(schema: Mapping[str, Any]) -> None:
    """Whether a schema can be held against values later on. Raises BadSchema, whose text is safe to show."""
    _check_places(schema)
    if len(_canonical(schema)) > SIZE_MAX:
        raise BadSchema(f"is larger than {SIZE_MAX} bytes")
    try:
        Draft202012Validator.check_schema(schema)
        for trial in _TRIALS:
            broken_rule(schema, trial)
    except (SchemaError, RecursionError) as error:
        raise BadSchema("is no JSON Schema (2020-12)") from error
    except BadSchema as error:
        raise BadSchema("refers to what is not there, or to too much of itself") from error


def _check_places(schema: Any, depth: int = 0) -> None:
    """Not too deep, and with no reference to another document."""
    if depth > DEPTH_MAX:
        raise BadSchema(f"is deeper than {DEPTH_MAX} levels")
    if isinstance(schema, Mapping):
        for name in _REFERENCES:
            if isinstance(said := schema.get(name, "#"), str) and not said.startswith("#"):
                raise BadSchema("refers to another document, which is never fetched")
        for value in schema.values():
            _check_places(value, depth + 1)
    elif isinstance(schema, list):
        for value in schema:
            _check_places(value, depth + 1)


def _checker() -> Any:
    """A validator for one value: it stops counting where it gets expensive."""
    left = [STEPS_MAX, RULES_MAX]

    def counted(rule: Rule, at: int) -> Rule:
        def asked(validator: Any, said: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
            left[at] -= 1
            if left[at] < 0:
                raise BadSchema("too much to follow")
            return rule(validator, said, instance, schema) or iter(())

        return asked

    known: Mapping[str, Rule] = {**Draft202012Validator.VALIDATORS, **dict.fromkeys(_UNREAD, _fits), "uniqueItems": _unique}
    rules = {name: counted(rule, 0 if name in _REFERENCES else 1) for name, rule in known.items()}
    return validators.extend(Draft202012Validator, rules)  # type: ignore[no-untyped-call]  # its stubs leave it open


def _fits(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    yield from ()


def _unique(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """In one pass, where the library compares each with each."""
    if rule and isinstance(instance, list) and len({_canonical(each) for each in instance}) < len(instance):
        yield ValidationError("has an item twice")
