"""The events of a session of Anthropic's managed agents: messages as artifacts, calls that wait as prompts, stop reasons as endings."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from adapters.contract import ArtifactPiece, Ask, Canceled, Done, Event, Failed, Prompt, PromptKind, usage
from adapters.task import Artifact, Part
from adapters.vendors.sdk.agent import said
from adapters.vendors.sdk.chat_content import question_in, text_in
from adapters.vendors.sdk.faults import FAILED, LOST, SESSION_LOST
from adapters.vendors.sdk.frames import Frame, SseFrame
from adapters.vendors.sdk.model_failures import FOREIGN, failure_in, failure_of

CALLS: Final = ("agent.tool_use", "agent.mcp_tool_use", "agent.custom_tool_use")
CUSTOM: Final = "agent.custom_tool_use"
READ: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
YES_OR_NO: Final = {"type": "boolean"}


class SessionReader:
    """Of the events of a session from what was said on. A message that came in pieces is told again as a whole, which counts."""

    def __init__(self) -> None:
        self._calls: dict[str, Mapping[str, Any]] = {}
        self._pieces: dict[str, str] = {}
        self._told: set[Any] = set()
        self._interrupted = False
        self._figures: dict[str, Any] = {}

    def take(self, frame: Frame) -> Iterator[Event]:
        if not isinstance(frame, SseFrame) or not frame.data.strip():
            return
        event = frame.json()
        if event.get("id") in self._told:
            return
        if event.get("id") and event.get("processed_at", True):  # what waits to be processed is told again
            self._told.add(event.get("id"))
        yield from self._event(event)

    def _event(self, event: Mapping[str, Any]) -> Iterator[Event]:
        match event.get("type"):
            case "event_delta":
                yield from self._piece(event)
            case "agent.message":
                yield from self._message(event)
            case kind if kind in CALLS:
                self._calls[event["id"]] = event
            case "span.model_request_end":
                self._spent(event.get("model_usage") or {})
            case "user.interrupt":
                self._interrupted = True
            case "session.error" if _is_final(event):
                yield failure_in(event.get("error"))
            case "session.status_terminated" | "error":
                yield failure_in(event.get("error") or "the session was terminated")
            case "session.deleted":
                yield Failed(LOST, detail="the session was deleted", kind=SESSION_LOST)
            case "session.status_idle":
                yield self._idle(event["stop_reason"], event.get("stop_details") or {})

    def _piece(self, event: Mapping[str, Any]) -> Iterator[Event]:
        name, text = str(event["event_id"]), text_in([event["delta"].get("content") or {}])
        if text:
            yield ArtifactPiece(Artifact(name, (Part(text=text),)), append=name in self._pieces, last_chunk=False)
            self._pieces[name] = self._pieces.get(name, "") + text

    def _message(self, event: Mapping[str, Any]) -> Iterator[Event]:
        text = text_in(event["content"])
        if text and text != self._pieces.get(event["id"]):
            yield ArtifactPiece(Artifact(str(event["id"]), (Part(text=text),)))

    def _spent(self, figures: Mapping[str, Any]) -> None:
        for name, theirs in (("input_tokens", READ), ("output_tokens", ("output_tokens",))):
            self._figures[name] = self._figures.get(name, 0) + sum(int(figures.get(each) or 0) for each in theirs)

    def _idle(self, reason: Mapping[str, Any], details: Mapping[str, Any]) -> Event:
        """The ending that a stop reason stands for. Raises KeyError for an unknown call and ValueError for an unknown reason."""
        match reason["type"]:
            case "requires_action" if names := reason.get("event_ids") or reason["requires_action"]["event_ids"]:
                return _asked([self._calls[each] for each in names])
            case "end_turn":
                return Canceled() if self._interrupted else Done(metadata=usage(**self._figures))
            case "refusal":
                explained = details.get("explanation")
                return failure_of("refusal", str(details.get("category")), said(explained) if explained else None)
            case "budget_reached":
                return failure_of("budget_reached", "the session reached its budget")
            case "retries_exhausted":
                return Failed(FAILED, detail="its retries are exhausted")
        raise ValueError(f"the session is idle for no reason that is known: {reason['type']!r}")


def _is_final(event: Mapping[str, Any]) -> bool:
    """An error that the agent tries again after is none yet."""
    retry = (event.get("error") or {}).get("retry_status") or {}
    return bool(retry.get("type") != "retrying")


def _asked(calls: list[Mapping[str, Any]]) -> Event:
    """A prompt for each call. A call that is allowed and waits is one that a self-hosted environment has to carry out."""
    foreign = [str(call["name"]) for call in calls if call["type"] != CUSTOM and call.get("evaluated_permission") == "allow"]
    return Failed(FOREIGN, detail=", ".join(foreign)) if foreign else Ask(prompts=tuple(map(_prompt, calls)))


def _prompt(call: Mapping[str, Any]) -> Prompt:
    name, given, custom = str(call["name"]), call.get("input"), call["type"] == CUSTOM
    kind, schema = (PromptKind.INPUT, None) if custom else (PromptKind.APPROVAL, YES_OR_NO)
    return Prompt(call["id"], question_in(given) if custom else f"May the agent use {name}?", {"call": name, "args": given}, schema, kind)
