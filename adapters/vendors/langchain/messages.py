"""Input and output of LangGraph's graphs: messages of the state, interrupts as prompts, usage."""

from collections.abc import Mapping
from typing import Any, Final

from adapters.contract import Prompt, Turn, token_usage_metadata
from adapters.task import Message, text_of
from adapters.vendors.sdk.chat_content import content_of, question_text

MESSAGES: Final = "messages"


def run_input(turn: Turn, state_member: str = "") -> dict[str, Any]:
    """The input of a run. `state_member`: the state member that gets a message's text, in a graph without `messages`.

    Answers name their interrupts: a bare value would answer whichever interrupt is open on the thread.
    """
    if turn.answers:
        return {"command": {"resume": {each.prompt.id: each.value for each in turn.answers}}}
    return {"input": _input_state(turn.message, state_member)}


def _input_state(message: Message, state_member: str) -> dict[str, Any]:
    """The state of a message: objects are merged as members; everything else is the person's message."""
    state = {name: value for part in message.parts if isinstance(part.data, dict) for name, value in part.data.items()}
    rest = [part for part in message.parts if not isinstance(part.data, dict)]
    if not rest:
        return state
    text = all(isinstance(part.text, str) for part in rest)
    content = text_of(tuple(rest)) if state_member and text else content_of(rest)
    return {**({state_member: content} if state_member else {MESSAGES: [{"role": "user", "content": content}]}), **state}


def interrupt_prompt(interrupt: Mapping[str, Any]) -> Prompt:
    value, schema = interrupt["value"], interrupt.get("response_schema")
    if isinstance(value, dict):
        return Prompt(interrupt["id"], question_text(value), value, schema)
    return Prompt(interrupt["id"], value if isinstance(value, str) else str(value), schema=schema)


def message_id_of(message: Mapping[str, Any]) -> str:
    return str(message.get("id") or "answer")


def usage_metadata(answers: list[dict[str, Any]]) -> dict[str, Any] | None:
    figures = [each["usage_metadata"] for each in answers if each.get("usage_metadata")]
    total = {name: sum(each.get(name, 0) for each in figures) for name in ("input_tokens", "output_tokens", "total_tokens")}
    return token_usage_metadata(str(answers[-1].get("response_metadata", {}).get("model_name", "")), **total) if figures else None
