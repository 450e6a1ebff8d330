"""Whether a value fits a JSON Schema that a stranger wrote: nothing is fetched, no pattern is run, and the work is bounded."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

STEPS_MAX: Final = 2_000  # references that are followed for one value
SAID_MAX: Final = 300  # characters
_UNREAD: Final = ("pattern", "patternProperties")  # a stranger's expressions may take for ever; whoever wrote them checks them
_NOWHERE: Final[Registry[Any]] = Registry()


class BadSchema(Exception):
    """Not a schema, or one that nobody can afford to follow."""


def problem_of(schema: Mapping[str, Any], value: Any) -> str:
    """Which rule a value breaks, and at which path, in no words of a stranger's; empty: it fits. Raises BadSchema."""
    try:
        Draft202012Validator.check_schema(schema)
        first = next(_checker()(schema, registry=_NOWHERE).iter_errors(value), None)
    except (SchemaError, Unresolvable, RecursionError) as error:
        raise BadSchema(type(error).__name__) from error
    return "" if first is None else f"{first.json_path[:SAID_MAX]} breaks the rule `{first.validator}`"


def _checker() -> Any:
    left = [STEPS_MAX]

    def counted(validator: Any, ref: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        left[0] -= 1
        if left[0] < 0:
            raise BadSchema("too many references")
        yield from Draft202012Validator.VALIDATORS["$ref"](validator, ref, instance, schema) or ()

    rules = {"$ref": counted, "$dynamicRef": counted, **dict.fromkeys(_UNREAD, _fits)}
    return validators.extend(Draft202012Validator, rules)  # type: ignore[no-untyped-call]  # its stubs leave it open


def _fits(validator: Any, rule: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    yield from ()
