"""Open prompts as forms of MCP elicitation, which know texts, numbers and flags, and what is filled in there as the prompt's answer."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from adapters.contract import Prompt
from adapters.task import Part
from gateway.tasks.contracts.prompts import PROMPT_ID, SIMPLE, VALUE, answers_no, is_simple, words

FIELD: Final = "answer"  # of the form that stands for a question in plain words
SCHEMA_SHOWN: Final = 2000  # characters


def form_of(prompt: Prompt) -> dict[str, Any]:
    """`message` and `requestedSchema`."""
    return {"message": words(prompt), "requestedSchema": _schema(prompt)}


def answered(prompts: Sequence[Prompt], results: Sequence[Mapping[str, Any]]) -> tuple[Part, ...] | None:
    """A data part for each prompt, of its ElicitResult. None: somebody declined what can't be answered with no."""
    parts = [_part(prompt, result) for prompt, result in zip(prompts, results, strict=True)]
    return tuple(part for part in parts if part is not None) if None not in parts else None


def _part(prompt: Prompt, result: Mapping[str, Any]) -> Part | None:
    """A refusal is an answer where the schema has one."""
    if result["action"] == "accept":
        value = _value(prompt, result.get("content") or {})
    elif result["action"] == "decline" and answers_no(prompt):
        value = False
    else:
        return None
    return Part(data={PROMPT_ID: prompt.id, VALUE: value}, media_type="application/json")


def _schema(prompt: Prompt) -> Mapping[str, Any]:
    if prompt.schema is not None and is_simple(prompt.schema):
        return prompt.schema
    field: Mapping[str, Any] = {"type": "string"}
    if prompt.schema is not None and prompt.schema.get("type") in SIMPLE:
        field = prompt.schema
    elif prompt.schema is not None:
        wanted = msgspec.json.encode(prompt.schema).decode()[:SCHEMA_SHOWN]
        field = {"type": "string", "description": f"JSON that fits {wanted}"}
    return {"type": "object", "properties": {FIELD: field}, "required": [FIELD]}


def _value(prompt: Prompt, content: Mapping[str, Any]) -> Any:
    """What a form can't ask for comes as the text of its JSON; what is none is found not to fit later."""
    if prompt.schema is not None and is_simple(prompt.schema):
        return dict(content)
    value = content.get(FIELD)
    if prompt.schema is None or prompt.schema.get("type") in SIMPLE or not isinstance(value, str):
        return value
    try:
        return msgspec.json.decode(value)
    except (ValueError, RecursionError):
        return value
