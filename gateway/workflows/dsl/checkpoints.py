"""Arguments of steps that ask people, as far as they are written out; what expressions make of them is known when the run comes there."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from gateway.tasks.contracts.json_schema import BadSchema, check_schema, problem_of
from gateway.workflows.dsl.durations import milliseconds_of
from gateway.workflows.dsl.loading import pointer
from gateway.workflows.dsl.wording import schema_problems, suggestion

APPROVE: Final = "gateway.approve"
CHOOSE: Final = "gateway.choose"
FORM: Final = "gateway.form"
SIGNAL: Final = "gateway.signal"
CHECKPOINTS: Final = (APPROVE, CHOOSE, FORM, SIGNAL)
PROMPT_MAX: Final = 4000  # characters
OPTIONS_MAX: Final = 100
APPROVAL_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string", "maxLength": 2000}},
    "required": ["approved"],
    "additionalProperties": False,
}
_COMMON: Final = ("expires", "default", "escalate")
_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    APPROVE: ("prompt", *_COMMON),
    CHOOSE: ("prompt", "options", *_COMMON),
    FORM: ("prompt", "schema", *_COMMON),
    SIGNAL: ("name", "schema", *_COMMON),
}
Found = Iterator[tuple[str, str]]


def checkpoint_problems(function: str, given: Mapping[str, Any]) -> Found:
    """The place within the arguments, as a JSON pointer, and the reason of everything that can't work."""
    known = _MEMBERS[function]
    for name in given.keys() - set(known):
        yield pointer(name), f"is not known to `{function}`, which has {', '.join(known)}{suggestion(name, known)}"
    yield from _prompt_problems(given, "name" if function == SIGNAL else "prompt")
    if "expires" in given:
        yield from _duration_problems(given["expires"], "/expires")
    if "escalate" in given and not _is_open(given["escalate"]):
        yield from _escalation_problems(given["escalate"])
    wrong = [*_options_problems(given)] if function == CHOOSE else [*_schema_problems(function, given)]
    yield from wrong
    if not wrong and "default" in given:
        yield from _default_problems(function, given)


def _is_open(value: Any) -> bool:
    """Whether the value, or anything in it, is an expression."""
    if isinstance(value, str):
        return "${" in value
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return any(map(_is_open, members))


def _prompt_problems(given: Mapping[str, Any], member: str) -> Found:
    if member not in given:
        yield "", f"lacks `{member}`"
        return
    text = given[member]
    if _is_open(text):
        return
    if not isinstance(text, str) or not 0 < len(text) <= PROMPT_MAX:
        yield f"/{member}", f"is no text of 1 to {PROMPT_MAX} characters"
    elif "\0" in text:
        yield f"/{member}", "has a NUL character"


def _duration_problems(value: Any, path: str) -> Found:
    if _is_open(value):
        return
    try:
        milliseconds_of(value if isinstance(value, str) else "")
    except ValueError as error:
        yield path, str(error)


def _escalation_problems(escalate: Any) -> Found:
    if not isinstance(escalate, Mapping) or escalate.keys() != {"after", "to"}:
        yield "/escalate", "has not the members `after` and `to`, and these alone"
        return
    yield from _duration_problems(escalate["after"], "/escalate/after")
    to = escalate["to"]
    if not isinstance(to, Mapping) or to.keys() - {"roles", "permissions"}:
        yield "/escalate/to", "is no object with `roles` and `permissions`"
        return
    for name, texts in to.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            yield f"/escalate/to/{name}", "is no list of texts"
    if not any(to.values()):
        yield "/escalate/to", "names no roles and no permissions"


def _options_problems(given: Mapping[str, Any]) -> Found:
    options = given.get("options")
    if isinstance(options, str) and _is_open(options):
        return
    if not isinstance(options, list) or not 0 < len(options) <= OPTIONS_MAX:
        yield "/options" if "options" in given else "", f"`options` is no list of 1 to {OPTIONS_MAX} values"


def _schema_problems(function: str, given: Mapping[str, Any]) -> Found:
    if "schema" not in given:
        if function == FORM:
            yield "", "lacks `schema`"
        return
    schema = given["schema"]
    if _is_open(schema):
        return
    if not isinstance(schema, Mapping):
        yield "/schema", "is no JSON Schema"
        return
    found = [(f"/schema{pointer(*steps)}", reason) for steps, reason in schema_problems(schema)]
    yield from found
    try:
        check_schema(schema)
    except BadSchema as error:
        if not found:
            yield "/schema", f"is no JSON Schema: {error}"


def _default_problems(function: str, given: Mapping[str, Any]) -> Found:
    """A default is the answer where nobody answers, so it fits what people may answer."""
    default, schema = given["default"], given.get("schema", {})
    if function == CHOOSE:
        schema = {"enum": given["options"]}
    elif function == APPROVE:
        schema = APPROVAL_SCHEMA
    if not _is_open(default) and not _is_open(schema) and (problem := problem_of(schema, default)):
        yield "/default", f"is no answer that people may give: {problem}"
