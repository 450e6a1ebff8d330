"""Converts an agent's questions to elicitations, and a person's answers to the message for the agent."""

from collections.abc import Mapping
from typing import Any

from adapters.task import Message, Part, TaskState, text_of
from gateway.ingress.mcp_server.elicitation.forms import ANSWER_FIELD, answer_parts, form_of
from gateway.tasks.contracts.prompts import open_prompts
from gateway.tasks.log import TaskRecord

ELICITATION_METHOD = "elicitation/create"
TEXT_SCHEMA = {"type": "object", "properties": {ANSWER_FIELD: {"type": "string"}}, "required": [ANSWER_FIELD]}
DEFAULT_MESSAGE = "The agent asks for input."
QUESTIONS_MAX = 16  # in one message of the agent


def questions_of(record: TaskRecord) -> dict[str, Any]:
    """Returns the open inputRequests by keys that are never reused (SEP-2663); none unless the task is INPUT_REQUIRED.

    Each data part with `requestedSchema` (and `message`) is one question. Without such parts the whole message is one text question.
    """
    if record.row.state is not TaskState.INPUT_REQUIRED:
        return {}
    event = next((event for event in reversed(record.events) if event.kind == "status"), None)
    message = event.status.message if event is not None else None
    parts = message.parts if isinstance(message, Message) else ()
    text, number = text_of(parts), event.seq if event is not None else 0
    prompts = open_prompts(record.row.vendor_ref)
    if prompts:
        return {f"q{number}-{place}": _elicitation_request(form_of(each)) for place, each in enumerate(prompts, 1)}
    forms = [part.data for part in parts if _is_form(part)][:QUESTIONS_MAX]
    if not forms:
        return {f"q{number}": _text_question(text, TEXT_SCHEMA)}
    return {
        f"q{number}-{place}": _text_question(str(form.get("message") or text), form["requestedSchema"])
        for place, form in enumerate(forms, 1)
    }


def answer_parts_of(record: TaskRecord, questions: Mapping[str, Any], answers: Mapping[str, Any]) -> tuple[Part, ...] | None:
    """Returns the parts of the answer: the text, the ElicitResult of each form in order, or the answers of the agent's prompts.

    Returns None when the person declined or canceled a text question.
    """
    prompts = open_prompts(record.row.vendor_ref)
    if prompts:
        return answer_parts(prompts, [answers[key] for key in questions])
    if len(questions) == 1 and next(iter(questions.values()))["params"]["requestedSchema"] is TEXT_SCHEMA:
        (answer,) = (answers[key] for key in questions)
        if answer["action"] != "accept":
            return None
        return (Part(text=answer["content"][ANSWER_FIELD]),)
    return tuple(Part(data=answers[key], media_type="application/json") for key in questions)


def is_answer(question: Mapping[str, Any], answer: Any) -> bool:
    """Returns whether `answer` is an ElicitResult, with a non-empty text where it accepts a text question."""
    if not isinstance(answer, dict) or answer.get("action") not in ("accept", "decline", "cancel"):
        return False
    if answer["action"] != "accept":
        return True
    content = answer.get("content", {})
    if not isinstance(content, dict):
        return False
    answer_text = content.get(ANSWER_FIELD)
    return question["params"]["requestedSchema"] is not TEXT_SCHEMA or (isinstance(answer_text, str) and bool(answer_text))


def _text_question(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return _elicitation_request({"message": text or DEFAULT_MESSAGE, "requestedSchema": schema})


def _elicitation_request(form: Mapping[str, Any]) -> dict[str, Any]:
    return {"method": ELICITATION_METHOD, "params": {"mode": "form", **form}}


def _is_form(part: Part) -> bool:
    schema = part.data.get("requestedSchema") if isinstance(part.data, dict) else None
    return isinstance(schema, dict) and schema.get("type") == "object" and isinstance(schema.get("properties"), dict)
