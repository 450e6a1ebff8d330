"""Summarizes the events of a turn in the form of an expectation file."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from adapters.contract import (
    ENDINGS,
    AnswerRefused,
    ArtifactPiece,
    Ask,
    Canceled,
    Done,
    Event,
    Failed,
    Progress,
    Prompt,
    PromptKind,
    Replied,
)
from adapters.task import Part

STATES: Final = {
    Done: "COMPLETED",
    Replied: "COMPLETED",
    Failed: "FAILED",
    Canceled: "CANCELED",
    Ask: "INPUT_REQUIRED",
    AnswerRefused: "ANSWER_REFUSED",
}
INPUT_MEMBERS: Final = ("send", "stream", "answers")  # members of an expected turn that describe its input


def outcome(events: Sequence[Event]) -> dict[str, Any]:
    """State, artifacts, prompts, reason, message and metadata. Raises AssertionError unless the last event is the only ending."""
    if [type(event) in ENDINGS for event in events] != [False] * (len(events) - 1) + [True]:
        raise AssertionError(f"a turn has one ending, and it is the last event: {events}")
    ending = events[-1]
    document: dict[str, Any] = {"state": _state(ending), "artifacts": _artifacts(events)}
    if isinstance(ending, Ask):
        document["prompts"] = [_prompt_document(prompt) for prompt in ending.prompts]
    if isinstance(ending, Failed | AnswerRefused):
        document |= {"kind": ending.kind, "reason": ending.reason}
    message = getattr(ending, "message", None)
    if message is not None:
        document["message"] = "\n".join(part.text for part in message.parts if isinstance(part.text, str))
    notes: dict[str, Any] = {}
    for event in events:
        if isinstance(event, Progress | Done):
            notes |= event.metadata or {}
    return document | ({"metadata": notes} if notes else {})


def matches_expectation(expected: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether an outcome matches. Artifacts and prompts are always compared, other members only where expected."""
    full = {"artifacts": [], "prompts": [], **expected}
    return all(found.get(name, []) == value for name, value in full.items() if name not in INPUT_MEMBERS)


def _state(ending: Event) -> str:
    if isinstance(ending, Failed) and ending.rejected:
        return "REJECTED"
    if isinstance(ending, Ask) and (ending.auth or any(prompt.kind is PromptKind.AUTH for prompt in ending.prompts)):
        return "AUTH_REQUIRED"
    return STATES[type(ending)]


def _artifacts(events: Sequence[Event]) -> list[dict[str, Any]]:
    found: dict[str, list[Part]] = {}
    for event in events:
        if isinstance(event, ArtifactPiece):
            earlier_parts = found.get(event.artifact.artifact_id, []) if event.append else []
            found[event.artifact.artifact_id] = [*earlier_parts, *event.artifact.parts]
    return [_artifact(parts) for parts in found.values()]


def _artifact(parts: Sequence[Part]) -> dict[str, Any]:
    """Texts joined as `text`, other parts in `parts`, metadata of parts in `metadata`."""
    texts = [part.text for part in parts if isinstance(part.text, str)]
    document: dict[str, Any] = {"text": "".join(texts)} if texts else {}
    others = [_part_content(part) for part in parts if not isinstance(part.text, str)]
    notes = [part.metadata for part in parts if isinstance(part.metadata, dict)]
    return document | ({"parts": others} if others else {}) | ({"metadata": notes} if notes else {})


def _part_content(part: Part) -> dict[str, Any]:
    unset = type(Part().raw)
    return {name: value for name in ("data", "raw", "url") if not isinstance(value := getattr(part, name), unset)}


def _prompt_document(prompt: Prompt) -> dict[str, Any]:
    members = {name: getattr(prompt, name) for name in ("id", "text", "data", "schema", "url")} | {"kind": prompt.kind.value}
    return {name: value for name, value in members.items() if value not in ("", None)}
