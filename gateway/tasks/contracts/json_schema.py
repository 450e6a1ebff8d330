"""Validates values against untrusted JSON Schemas: fetches nothing, runs no patterns, and bounds the work."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec
from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import SchemaError, ValidationError
from msgspec import Struct
from referencing import Registry
from referencing.exceptions import Unresolvable

REFERENCES_MAX: Final = 2_000  # references followed for one value
RULES_MAX: Final = 100_000  # rules evaluated for one value
SIZE_MAX: Final = 1 << 16  # bytes of one accepted schema
DEPTH_MAX: Final = 32
PATH_MAX: Final = 300  # characters
NAMES_MAX: Final = 10  # missing members that are named
WANTED_MAX: Final = 120  # characters of a rule's value that are shown
_SIZES: Final = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_RANGES: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
_SHOWN_VALUES: Final = frozenset(("type", "enum", "const", "format", *_RANGES, *_SIZES))
_SKIPPED_KEYWORDS: Final = ("pattern", "patternProperties")  # untrusted expressions may take for ever; only the agent checks them
_REFERENCE_KEYWORDS: Final = ("$ref", "$dynamicRef", "$recursiveRef")
_EMPTY_REGISTRY: Final[Registry[Any]] = Registry()
_TRIAL_VALUES: Final[tuple[Any, ...]] = (
    None,
    "",
    0,
    [],
    [None],
    {},
)  # reveal a schema that is too expensive
_canonical = msgspec.json.Encoder(order="deterministic").encode
Rule = Callable[[Any, Any, Any, Any], Iterator[ValidationError]]


class BadSchema(Exception):
    """The schema is invalid, or too expensive to evaluate."""


class BrokenRule(Struct, frozen=True):
    """The place of a value (from `$`) that breaks a rule, the rule's name, and what it wants, where that can be said in short."""

    path: str
    name: str
    wanted: str = ""

    @property
    def text(self) -> str:
        """For an error text. It quotes the schema and nothing of the value."""
        return f"breaks the rule `{self.name}`" + (f" ({self.wanted})" if self.wanted else "")


def problem_of(schema: Mapping[str, Any], value: Any) -> str:
    """Returns the rule that a value breaks and its path, quoting nothing of the value, or an empty text. Raises BadSchema."""
    try:
        Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError) as error:
        raise BadSchema(type(error).__name__) from error
    broken = find_broken_rule(schema, value)
    return "" if broken is None else f"{broken.path} {broken.text}"


def find_broken_rule(schema: Mapping[str, Any], value: Any) -> BrokenRule | None:
    """Returns the first rule that a value breaks, or None.

    The schema must have passed `check_schema`. Raises BadSchema.
    """
    try:
        first = next(_bounded_validator(schema)(schema, registry=_EMPTY_REGISTRY).iter_errors(value), None)
    except (SchemaError, Unresolvable, RecursionError) as error:
        raise BadSchema(type(error).__name__) from error
    return None if first is None else BrokenRule(first.json_path[:PATH_MAX], str(first.validator), _wanted_by(first))


def _wanted_by(error: ValidationError) -> str:
    """What the broken rule wants, by the schema."""
    wanted: Any = error.validator_value
    if error.validator == "required" and isinstance(error.instance, Mapping):
        missing = [name for name in wanted if name not in error.instance]
        shown = ", ".join(f"`{name[:PATH_MAX]}`" for name in missing[:NAMES_MAX])
        return f"missing: {shown}{', …' if len(missing) > NAMES_MAX else ''}"
    if error.validator in _SHOWN_VALUES:
        text = _canonical(wanted).decode()
        return text if len(text) <= WANTED_MAX else f"{text[:WANTED_MAX]}…"
    return ""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises BadSchema, with a public text, if values cannot be validated against the schema."""
    _check_depth_and_references(schema)
    if len(_canonical(schema)) > SIZE_MAX:
        raise BadSchema(f"is larger than {SIZE_MAX} bytes")
    try:
        Draft202012Validator.check_schema(schema)
        for trial in _TRIAL_VALUES:
            find_broken_rule(schema, trial)
    except (SchemaError, RecursionError) as error:
        raise BadSchema("is no JSON Schema (2020-12)") from error
    except BadSchema as error:
        raise BadSchema("refers to what is not there, or to too much of itself") from error


def _check_depth_and_references(schema: Any, depth: int = 0) -> None:
    """Raises BadSchema if the schema is too deep or refers to another document."""
    if depth > DEPTH_MAX:
        raise BadSchema(f"is deeper than {DEPTH_MAX} levels")
    if isinstance(schema, Mapping):
        for name in _REFERENCE_KEYWORDS:
            if isinstance(reference := schema.get(name, "#"), str) and not reference.startswith("#"):
                raise BadSchema("refers to another document, which is never fetched")
        for value in schema.values():
            _check_depth_and_references(value, depth + 1)
    elif isinstance(schema, list):
        for value in schema:
            _check_depth_and_references(value, depth + 1)


def _bounded_validator(document: Mapping[str, Any]) -> Any:
    """Returns a validator for one value that raises BadSchema when its work exceeds the bounds."""
    left = [REFERENCES_MAX, RULES_MAX]

    def with_counter(rule: Rule, counter: int) -> Rule:
        def bounded_rule(validator: Any, keyword_value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
            left[counter] -= 1
            if left[counter] < 0:
                raise BadSchema("too much to follow")
            return rule(validator, keyword_value, instance, schema) or iter(())

        return bounded_rule

    known: Mapping[str, Rule] = {
        **Draft202012Validator.VALIDATORS,
        **dict.fromkeys(_SKIPPED_KEYWORDS, _accept),
        "additionalProperties": _check_additional_properties,
        "uniqueItems": _check_unique_items,
    }
    if b'"patternProperties"' in _canonical(document):  # the library would run its patterns to see which members are evaluated
        known = {**known, "unevaluatedProperties": _accept}
    rules = {name: with_counter(rule, 0 if name in _REFERENCE_KEYWORDS else 1) for name, rule in known.items()}
    return validators.extend(Draft202012Validator, rules)  # type: ignore[no-untyped-call]  # its stubs leave it open


def _accept(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    yield from ()


def _check_additional_properties(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Accepts all members beside `patternProperties`: the library would run those patterns to see which members are additional."""
    if "patternProperties" not in schema:
        yield from Draft202012Validator.VALIDATORS["additionalProperties"](validator, rule, instance, schema)


def _check_unique_items(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Checks `uniqueItems` in linear time; the library compares each pair."""
    if rule and isinstance(instance, list) and len({_canonical(each) for each in instance}) < len(instance):
        yield ValidationError("has an item twice")
