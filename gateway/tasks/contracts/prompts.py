"""Open prompts: what a task waits for, how prompts are shown, and how answers are checked."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog
from msgspec import UNSET
from msgspec.structs import replace

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.contract import Answer, Prompt, PromptKind, VendorRef
from adapters.task import Message, Part, Role
from gateway.tasks.contracts.json_schema import BadSchema, problem_of
from gateway.tasks.events.entries import PROMPTS_MARK

PROMPT_ID_KEY: Final = "promptId"
VALUE_KEY: Final = "value"
DEFAULT_TEXTS: Final = {
    PromptKind.INPUT: "The agent asks for input.",
    PromptKind.APPROVAL: "The agent asks for an approval.",
    PromptKind.AUTH: "The agent asks for an authorization.",
}
YES_WORDS: Final = frozenset({"yes", "y", "true", "approve", "approved", "accept", "ok"})
NO_WORDS: Final = frozenset({"no", "n", "false", "deny", "denied", "reject", "decline"})
SIMPLE_TYPES: Final = ("string", "number", "integer", "boolean")  # a tuple, because an agent's `type` may be an unhashable list
_decode_ref = msgspec.json.Decoder(VendorRef).decode
log = structlog.get_logger()


class BadPromptAnswer(BadMessage):
    """A message answers no open prompt, or does not fit the prompt's schema."""


def open_prompts(vendor_ref: str) -> tuple[Prompt, ...]:
    """Returns the open prompts of a task from its `vendor_ref`."""
    return (_decode_ref(vendor_ref).prompts or ()) if PROMPTS_MARK in vendor_ref else ()


def with_prompts(vendor_ref: str, prompts: tuple[Prompt, ...]) -> str:
    """Returns the `vendor_ref` with these open prompts in place of the former ones."""
    if not prompts and PROMPTS_MARK not in vendor_ref:
        return vendor_ref
    return msgspec.json.encode(replace(_decode_ref(vendor_ref), prompts=prompts or UNSET)).decode()


def with_unanswered_prompts(vendor_ref: str, ref: VendorRef) -> VendorRef:
    """Returns the agent's new ids with the prompts that the turn answers, until the agent has accepted the answers."""
    return replace(ref, prompts=_decode_ref(vendor_ref).prompts) if PROMPTS_MARK in vendor_ref and ref.prompts is UNSET else ref


def message_with_prompts(message: Message | None, prompts: Sequence[Prompt], message_id: str) -> Message:
    """Returns the agent's message, with each prompt as a data part."""
    parts = message.parts if message else tuple(Part(text=prompt_text(each)) for each in prompts)
    all_parts = (*parts, *(Part(data=prompt_document(each), media_type="application/json") for each in prompts))
    return replace(message, parts=all_parts) if message else Message(message_id, Role.AGENT, all_parts)


def prompt_text(prompt: Prompt) -> str:
    """Returns the text of a prompt for users; never empty."""
    text = prompt.text or DEFAULT_TEXTS[prompt.kind]
    return f"{text}\n{prompt.url}" if prompt.url else text


def prompt_document(prompt: Prompt) -> dict[str, Any]:
    """Returns a prompt for programs. A data part {"promptId", "value"} answers it; the value must fit the schema."""
    members = {"text": prompt.text, "data": prompt.data, "schema": prompt.schema, "url": prompt.url}
    return {
        PROMPT_ID_KEY: prompt.id,
        "kind": prompt.kind.value,
        **{name: value for name, value in members.items() if value not in ("", None)},
    }


def find_answers(prompts: Sequence[Prompt], message: Message) -> tuple[Answer, ...]:
    """Returns the answers in a message, one for each open prompt. Raises BadPromptAnswer."""
    answers_by_id = _answers_by_prompt_id(message)
    known = {each.id: each for each in prompts}
    for prompt_id, (field, _) in answers_by_id.items():
        if prompt_id not in known:
            raise BadPromptAnswer(
                f"{field}.{PROMPT_ID_KEY}", "names no open prompt" if known else "names a prompt, but the task waits for none"
            )
    if not prompts:
        return ()
    if not answers_by_id and len(prompts) == 1:
        return (_answer_to_single_prompt(prompts[0], message),)
    missing = [each.id for each in prompts if each.id not in answers_by_id]
    if missing:
        instruction = f'answer each by a data part {{"{PROMPT_ID_KEY}", "{VALUE_KEY}"}}'
        raise BadPromptAnswer("message.parts", f"has no answer to {len(missing)} of {len(prompts)} open prompts: {instruction}")
    return tuple(
        Answer(known[prompt_id], _check_value(known[prompt_id], value, field)) for prompt_id, (field, value) in answers_by_id.items()
    )


def _answers_by_prompt_id(message: Message) -> dict[str, tuple[str, Any]]:
    """Returns the path and the value of each data part that names its prompt. Raises BadPromptAnswer."""
    found: dict[str, tuple[str, Any]] = {}
    for place, part in enumerate(message.parts):
        data, field = part.data, f"message.parts[{place}].data"
        if not isinstance(data, dict) or not isinstance(data.get(PROMPT_ID_KEY), str) or VALUE_KEY not in data:
            continue
        if data[PROMPT_ID_KEY] in found:
            raise BadPromptAnswer(f"{field}.{PROMPT_ID_KEY}", "names a prompt that was answered already")
        found[data[PROMPT_ID_KEY]] = (field, data[VALUE_KEY])
    return found


def _answer_to_single_prompt(prompt: Prompt, message: Message) -> Answer:
    """Returns the answer to the only open prompt: one data part without an id, or text. Raises BadPromptAnswer."""
    values = [(f"message.parts[{place}].data", part.data) for place, part in enumerate(message.parts) if part.data is not UNSET]
    if len(values) == 1:
        field, value = values[0]
        return Answer(prompt, _check_value(prompt, value, field))
    texts = [part.text for part in message.parts if isinstance(part.text, str)]
    if values or not texts:
        raise BadPromptAnswer("message.parts", "must be one text, or one data part, to answer what the task waits for")
    return Answer(prompt, _value_from_text(prompt, "\n".join(texts)))


def _value_from_text(prompt: Prompt, text: str) -> Any:
    """Reads a text as a string if the schema accepts one, else as yes or no, else as JSON. Raises BadPromptAnswer."""
    problem = _find_problem(prompt, text)
    if not problem:
        return text
    word = text.strip().strip(".!").lower()
    readings: list[Any] = [True] if word in YES_WORDS else [False] if word in NO_WORDS else []
    with suppress(ValueError, RecursionError):
        readings.append(msgspec.json.decode(text))
    for value in readings:
        if not _find_problem(prompt, value):
            return value
    raise BadPromptAnswer("message.parts[0].text", f"does not fit what the task waits for: {problem}")


def _check_value(prompt: Prompt, value: Any, field: str) -> Any:
    problem = _find_problem(prompt, value)
    if problem:
        raise BadPromptAnswer(field, f"does not fit what the task waits for: {problem}")
    return value


def _find_problem(prompt: Prompt, value: Any) -> str:
    """Returns why the value does not fit, or an empty text.

    If the gateway cannot evaluate the schema, only the agent enforces it.
    """
    if prompt.schema is None:
        return ""
    try:
        return problem_of(prompt.schema, value)
    except BadSchema as error:
        log.warning("prompt_schema_unusable", prompt=prompt.id[:100], why=str(error))
        return ""


def accepts_no(prompt: Prompt) -> bool:
    """Returns whether `false` is a valid answer to the prompt."""
    return prompt.schema is not None and not _find_problem(prompt, False)


def can_be_form(schema: Mapping[str, Any]) -> bool:
    """Returns whether a form (MCP elicitation) can ask for the value: an object of texts, numbers and booleans."""
    members = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(members, Mapping):
        return False
    return all(isinstance(each, Mapping) and each.get("type") in SIMPLE_TYPES for each in members.values())
