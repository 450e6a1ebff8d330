"""Converts open prompts to forms of MCP elicitation, which support strings, numbers and booleans, and form content to prompt answers."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from adapters.contract import Prompt
from adapters.task import Part
from gateway.tasks.contracts.prompts import PROMPT_ID_KEY, SIMPLE_TYPES, VALUE_KEY, accepts_no, can_be_form, prompt_text

ANSWER_FIELD: Final = "answer"  # the field of a form for a text question
SCHEMA_TEXT_MAX: Final = 2000  # characters


def form_of(prompt: Prompt) -> dict[str, Any]:
    """Returns `message` and `requestedSchema` of a prompt's form."""
    return {"message": prompt_text(prompt), "requestedSchema": _form_schema(prompt)}


def answer_parts(prompts: Sequence[Prompt], results: Sequence[Mapping[str, Any]]) -> tuple[Part, ...] | None:
    """Returns a data part for each prompt from its ElicitResult, or None when a prompt that has no negative answer was declined."""
    parts = [_answer_part(prompt, result) for prompt, result in zip(prompts, results, strict=True)]
    return tuple(part for part in parts if part is not None) if None not in parts else None


def _answer_part(prompt: Prompt, result: Mapping[str, Any]) -> Part | None:
    """Returns the answer of one prompt. Declining is the answer False where the schema accepts it."""
    if result["action"] == "accept":
        value = _answer_value(prompt, result.get("content") or {})
    elif result["action"] == "decline" and accepts_no(prompt):
        value = False
    else:
        return None
    return Part(data={PROMPT_ID_KEY: prompt.id, VALUE_KEY: value}, media_type="application/json")


def _form_schema(prompt: Prompt) -> Mapping[str, Any]:
    if prompt.schema is not None and can_be_form(prompt.schema):
        return prompt.schema
    field: Mapping[str, Any] = {"type": "string"}
    if prompt.schema is not None and prompt.schema.get("type") in SIMPLE_TYPES:
        field = prompt.schema
    elif prompt.schema is not None:
        wanted = msgspec.json.encode(prompt.schema).decode()[:SCHEMA_TEXT_MAX]
        field = {"type": "string", "description": f"JSON that fits {wanted}"}
    return {"type": "object", "properties": {ANSWER_FIELD: field}, "required": [ANSWER_FIELD]}


def _answer_value(prompt: Prompt, content: Mapping[str, Any]) -> Any:
    """Returns the value of an accepted form.

    A type that forms don't support is entered as JSON text; a text that is not JSON is returned, and fails validation later.
    """
    if prompt.schema is not None and can_be_form(prompt.schema):
        return dict(content)
    value = content.get(ANSWER_FIELD)
    if prompt.schema is None or prompt.schema.get("type") in SIMPLE_TYPES or not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (ValueError, RecursionError):
        return value
