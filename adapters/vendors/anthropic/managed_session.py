"""Reads events of Anthropic's managed agents: messages become artifacts, waiting calls become prompts, stop reasons become endings."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from adapters.contract import ArtifactPiece, Ask, Canceled, Done, Event, Failed, Prompt, PromptKind, token_usage_metadata
from adapters.task import Artifact, Part
from adapters.vendors.sdk.agent import agent_message
from adapters.vendors.sdk.chat_content import question_text, text_in
from adapters.vendors.sdk.faults import AGENT_FAILED_TEXT, SESSION_LOST, SESSION_LOST_TEXT
from adapters.vendors.sdk.frames import Frame, SseFrame
from adapters.vendors.sdk.model_failures import UNSUPPORTED_ACTION_TEXT, failure_for_code, failure_from_error

CALL_EVENTS: Final = ("agent.tool_use", "agent.mcp_tool_use", "agent.custom_tool_use")
CUSTOM_CALL: Final = "agent.custom_tool_use"
INPUT_TOKEN_FIELDS: Final = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
BOOLEAN_SCHEMA: Final = {"type": "boolean"}


class AnthropicSessionReader:
    """Reads a session's events from a message on. A message that arrived in pieces is sent again as a whole, which replaces them."""

    def __init__(self) -> None:
        self._calls: dict[str, Mapping[str, Any]] = {}
        self._pieces: dict[str, str] = {}
        self._read_event_ids: set[Any] = set()
        self._was_interrupted = False
        self._figures: dict[str, Any] = {}

    def read(self, frame: Frame) -> Iterator[Event]:
        if not isinstance(frame, SseFrame) or not frame.data.strip():
            return
        event = frame.json()
        if event.get("id") in self._read_event_ids:
            return
        if event.get("id") and event.get("processed_at", True):  # an event that waits to be processed is sent again
            self._read_event_ids.add(event.get("id"))
        yield from self._read_event(event)

    def _read_event(self, event: Mapping[str, Any]) -> Iterator[Event]:
        match event.get("type"):
            case "event_delta":
                yield from self._piece_events(event)
            case "agent.message":
                yield from self._message_events(event)
            case kind if kind in CALL_EVENTS:
                self._calls[event["id"]] = event
            case "span.model_request_end":
                self._add_usage(event.get("model_usage") or {})
            case "user.interrupt":
                self._was_interrupted = True
            case "session.error" if _is_final(event):
                yield failure_from_error(event.get("error"))
            case "session.status_terminated" | "error":
                yield failure_from_error(event.get("error") or "the session was terminated")
            case "session.deleted":
                yield Failed(SESSION_LOST_TEXT, detail="the session was deleted", kind=SESSION_LOST)
            case "session.status_idle":
                yield self._ending_for_reason(event["stop_reason"], event.get("stop_details") or {})

    def _piece_events(self, event: Mapping[str, Any]) -> Iterator[Event]:
        name, text = str(event["event_id"]), text_in([event["delta"].get("content") or {}])
        if text:
            yield ArtifactPiece(Artifact(name, (Part(text=text),)), append=name in self._pieces, last_chunk=False)
            self._pieces[name] = self._pieces.get(name, "") + text

    def _message_events(self, event: Mapping[str, Any]) -> Iterator[Event]:
        text = text_in(event["content"])
        if text and text != self._pieces.get(event["id"]):
            yield ArtifactPiece(Artifact(str(event["id"]), (Part(text=text),)))

    def _add_usage(self, figures: Mapping[str, Any]) -> None:
        for name, vendor_names in (("input_tokens", INPUT_TOKEN_FIELDS), ("output_tokens", ("output_tokens",))):
            self._figures[name] = self._figures.get(name, 0) + sum(int(figures.get(each) or 0) for each in vendor_names)

    def _ending_for_reason(self, reason: Mapping[str, Any], details: Mapping[str, Any]) -> Event:
        """The ending for a stop reason. Raises KeyError for an unknown call and ValueError for an unknown reason."""
        match reason["type"]:
            case "requires_action" if names := reason.get("event_ids") or reason["requires_action"]["event_ids"]:
                return _ask_for_calls([self._calls[each] for each in names])
            case "end_turn":
                return Canceled() if self._was_interrupted else Done(metadata=token_usage_metadata(**self._figures))
            case "refusal":
                explained = details.get("explanation")
                return failure_for_code("refusal", str(details.get("category")), agent_message(explained) if explained else None)
            case "budget_reached":
                return failure_for_code("budget_reached", "the session reached its budget")
            case "retries_exhausted":
                return Failed(AGENT_FAILED_TEXT, detail="its retries are exhausted")
        raise ValueError(f"the session is idle for no reason that is known: {reason['type']!r}")


def _is_final(event: Mapping[str, Any]) -> bool:
    """Whether an error is final: the agent does not retry."""
    retry = (event.get("error") or {}).get("retry_status") or {}
    return bool(retry.get("type") != "retrying")


def _ask_for_calls(calls: list[Mapping[str, Any]]) -> Event:
    """A prompt for each call. Fails for a call that waits although it is allowed: a self-hosted environment has to execute it."""
    foreign = [str(call["name"]) for call in calls if call["type"] != CUSTOM_CALL and call.get("evaluated_permission") == "allow"]
    return Failed(UNSUPPORTED_ACTION_TEXT, detail=", ".join(foreign)) if foreign else Ask(prompts=tuple(map(_build_prompt, calls)))


def _build_prompt(call: Mapping[str, Any]) -> Prompt:
    name, call_input, custom = str(call["name"]), call.get("input"), call["type"] == CUSTOM_CALL
    kind, schema = (PromptKind.INPUT, None) if custom else (PromptKind.APPROVAL, BOOLEAN_SCHEMA)
    return Prompt(
        call["id"], question_text(call_input) if custom else f"May the agent use {name}?", {"call": name, "args": call_input}, schema, kind
    )
