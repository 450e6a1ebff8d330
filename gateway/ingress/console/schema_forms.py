"""Forms made from JSON Schemas of workflows, and the values that people filled in."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.ingress.console.forms import FormRefused

FIELDS_MAX: Final = 30  # members of a form; one with more is answered as JSON
OPTIONS_MAX: Final = 100
PREFIX: Final = "value."  # of the fields in the posted form
WHOLE: Final = "json"  # the field of a value that is written as JSON
KINDS: Final = {"string": "text", "number": "number", "integer": "integer", "boolean": "check"}


@dataclass(frozen=True, slots=True)
class AnswerField:
    """One member of a form. `kind`: text, number, integer, check, choice or json. `options` are JSON texts."""

    name: str
    kind: str
    label: str
    is_required: bool
    description: str = ""
    options: tuple[str, ...] = ()
    length_max: int = 4000


def fields_of(schema: Any) -> tuple[AnswerField, ...]:
    """Returns the fields for an object schema; none where only JSON can express the value."""
    members = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(members, dict) or not members or len(members) > FIELDS_MAX:
        return ()
    required = schema.get("required")
    needed = set(required) if isinstance(required, list) else set()
    return tuple(_field(name, member if isinstance(member, dict) else {}, name in needed) for name, member in members.items())


def options_of(schema: Any) -> tuple[str, ...]:
    """Returns the options of a schema with `enum` as JSON texts."""
    options = schema.get("enum") if isinstance(schema, dict) else None
    if not isinstance(options, list) or not 0 < len(options) <= OPTIONS_MAX:
        return ()
    return tuple(json.dumps(option, ensure_ascii=False) for option in options)


def read_value(schema: Any, form: Mapping[str, str]) -> Any:
    """Returns the value of a posted form, which /api checks against the schema. Raises FormRefused."""
    if WHOLE in form:
        return _parse(form[WHOLE])
    return {field.name: value for field in fields_of(schema) if (value := _value(field, form.get(PREFIX + field.name, ""))) is not None}


def _field(name: str, member: Mapping[str, Any], is_required: bool) -> AnswerField:
    options = options_of(member)
    found = member.get("type")
    kind = "choice" if options else KINDS.get(found, "json") if isinstance(found, str) else "json"
    label, description = member.get("title"), member.get("description")
    return AnswerField(
        name,
        kind,
        label if isinstance(label, str) and label else name,
        is_required,
        description if isinstance(description, str) else "",
        options,
    )


def _value(field: AnswerField, text: str) -> Any:
    """Returns the value of one field; None for one that was left empty."""
    if field.kind == "check":
        return text == "true"
    if not text:
        return None
    if field.kind == "text":
        return text
    if field.kind in ("number", "integer"):
        try:
            return int(text) if field.kind == "integer" else float(text)
        except ValueError:
            raise FormRefused(f"{field.name[:100]} is not a number") from None
    return _parse(text)


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise FormRefused("a value is not JSON") from None
