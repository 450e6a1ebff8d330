"""Open prompts as forms of MCP elicitation, which know texts, numbers and flags, and what is filled in there as the prompt's answer."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from adapters.contract import Prompt
from adapters.task import Part
from gateway.tasks.contracts.prompts import PROMPT_ID_KEY, SIMPLE_TYPES, VALUE_KEY, accepts_no, can_be_form, prompt_text

ANSWER_FIELD: Final = "answer"  # of the form that stands for a question in plain words
SCHEMA_TEXT_MAX: Final = 2000  # characters


def form_of(prompt: Prompt) -> dict[str, Any]:
    """`message` and `requestedSchema`."""
    return {"message": prompt_text(prompt), "requestedSchema": _form_schema(prompt)}


def answer_parts(prompts: Sequence[Prompt], results: Sequence[Mapping[str, Any]]) -> tuple[Part, ...] | None:
    """A data part for each prompt, of its ElicitResult. None: somebody declined what can't be answered with no."""
    parts = [_answer_part(prompt, result) for prompt, result in zip(prompts, results, strict=True)]
    return tuple(part for part in parts if part is not None) if None not in parts else None


def _answer_part(prompt: Prompt, result: Mapping[str, Any]) -> Part | None:
    """A refusal is an answer where the schema has one."""
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
    """What a form can't ask for comes as the text of its JSON; what is none is found not to fit later."""
    if prompt.schema is not None and can_be_form(prompt.schema):
        return dict(content)
    value = content.get(ANSWER_FIELD)
    if prompt.schema is None or prompt.schema.get("type") in SIMPLE_TYPES or not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (ValueError, RecursionError):
        return value
