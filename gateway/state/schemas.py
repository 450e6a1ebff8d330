"""JSON Schemas that operators write for values. Patterns are matched in linear time, and no reference leaves a schema."""

import json
from collections.abc import Mapping
from typing import Any, Final

import jsonschema_rs

PROBLEM_CHARS_MAX: Final = 300
WANTED_CHARS_MAX: Final = 120  # of what a rule wants
_SHOWN_FACTS: Final = (
    "options",
    "expected_value",
    "limit",
    "types",
    "property",
    "format",
    "multiple_of",
)  # of the schema, not of the value


class BadSchemaOfPrefix(ValueError):
    """The schema of a prefix is no JSON Schema, or refers to something outside it."""


class CompiledSchema:
    """One schema (2020-12). Raises BadSchemaOfPrefix."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        options = jsonschema_rs.RegexOptions()
        try:
            self._validator = jsonschema_rs.Draft202012Validator(dict(schema), pattern_options=options, retriever=_refuse_reference)
        except (jsonschema_rs.ValidationError, ValueError, TypeError) as error:
            raise BadSchemaOfPrefix(str(error).partition("\n")[0][:PROBLEM_CHARS_MAX]) from None

    def problem_of(self, value: Any) -> str:
        """The place of the first rule that the value breaks, and what it wants, without quoting the value; empty where it fits."""
        error = next(self._validator.iter_errors(value), None)
        if error is None:
            return ""
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
        rule = error.schema_path[-1] if error.schema_path else "false"
        problem = f"${path} breaks the rule `{rule}`{_wanted_by(error)}"[:PROBLEM_CHARS_MAX]
        return problem.replace("\0", "\ufffd")  # PostgreSQL stores no NUL in text


def _wanted_by(error: jsonschema_rs.ValidationError) -> str:
    facts = error.kind.as_dict()
    wanted = next((json.dumps(facts[name], ensure_ascii=False) for name in _SHOWN_FACTS if name in facts), "")
    shown = wanted if len(wanted) <= WANTED_CHARS_MAX else f"{wanted[:WANTED_CHARS_MAX]}…"
    return f" ({shown})" if shown else ""


def _refuse_reference(uri: str) -> Any:
    raise ValueError(f"{uri[:200]} is outside the schema")
