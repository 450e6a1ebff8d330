"""Reads a chat completion, whole or as a stream of chunks: text, images, tool calls, refusal and finish reason."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from adapters.contract import CITATIONS_KEY, ArtifactPiece, Ask, Done, Event, Failed, Prompt, token_usage_metadata
from adapters.task import Artifact, Part
from adapters.vendors.openai.items import open_call_prompt
from adapters.vendors.sdk.agent import agent_message
from adapters.vendors.sdk.chat_content import text_in
from adapters.vendors.sdk.faults import AGENT_FAILED_TEXT, NOT_ACCEPTED_TEXT, UPSTREAM
from adapters.vendors.sdk.frames import End, Frame, Head, JsonBody, SseFrame
from adapters.vendors.sdk.model_failures import REFUSED_TEXT, UNSUPPORTED_ACTION_TEXT, failure_for_code, failure_from_error

ANSWER: Final = "answer"
USAGE_FIELDS: Final = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens", "total_tokens": "total_tokens"}
FINISH_REASONS: Final = (
    "stop",
    "tool_calls",
    "end_turn",
    "eos",
    "eos_token",
    "stop_sequence",
)  # of a complete answer: OpenAI's, then other servers'


class ChatReader:
    """Reads one answer. A stream ends at `[DONE]`, or at the end of the body after a chunk with a finish reason.

    `is_structured`: the operator requested JSON, so the text is sent as data at the end, not in pieces.
    """

    def __init__(self, is_structured: bool = False) -> None:
        self._is_structured = is_structured
        self._status = 200
        self._text = ""
        self._refusal = ""
        self._calls: dict[int, dict[str, Any]] = {}
        self._files: list[Part] = []
        self._notes: list[dict[str, Any]] = []
        self._model = ""
        self._figures: Mapping[str, Any] = {}
        self._finish_reason = ""
        self._has_legacy_call = False

    def read(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case Head(status=status):
                self._status = status
            case JsonBody(value):
                yield from self._whole_events(value)
            case SseFrame(data="[DONE]"):
                yield from self._final_events() if self._finish_reason else ()
            case SseFrame(data=data) if data.strip():
                yield from self._chunk_events(frame.json())
            case End() if self._finish_reason:
                yield from self._final_events()

    def message(self) -> dict[str, Any]:
        """The assistant's message, for the next request."""
        calls = {"tool_calls": list(self._calls.values())} if self._calls else {}
        return {"role": "assistant", "content": self._text, **calls}

    def _whole_events(self, value: Mapping[str, Any]) -> Iterator[Event]:
        if value.get("error") or self._status >= 400:
            yield self._failure(value.get("error") or value)
            return
        choice = value["choices"][0]
        self._note_usage(value)
        self._finish_reason = choice.get("finish_reason") or "stop"
        yield from self._message_events(choice["message"])
        yield from self._final_events()

    def _chunk_events(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        if chunk.get("error"):
            yield self._failure(chunk["error"])
            return
        self._note_usage(chunk)
        for choice in chunk.get("choices") or ():
            if not choice.get("index"):  # the gateway requests one choice
                yield from self._message_events(choice.get("delta") or {})
                self._finish_reason = choice.get("finish_reason") or self._finish_reason

    def _message_events(self, message: Mapping[str, Any]) -> Iterator[Event]:
        """Yields the events of a message, or of a delta."""
        text = text_in(message.get("content"))
        if text and not self._is_structured:
            yield ArtifactPiece(Artifact(ANSWER, (Part(text=text),)), append=bool(self._text), last_chunk=False)
        self._text += text
        self._refusal += message.get("refusal") or ""
        self._has_legacy_call = self._has_legacy_call or bool(message.get("function_call"))
        self._files += [_file(each["image_url"]["url"]) for each in message.get("images") or ()]
        self._notes += [_citation(each["url_citation"]) for each in message.get("annotations") or () if each.get("type") == "url_citation"]
        for place, call in enumerate(message.get("tool_calls") or ()):
            self._collect_call(call.get("index", place), call)

    def _collect_call(self, index: int, piece: Mapping[str, Any]) -> None:
        """Adds a piece of a call: its id and name arrive once, its arguments in pieces."""
        call = self._calls.setdefault(index, {"id": "", "type": piece.get("type") or "function"})
        call["id"] = piece.get("id") or call["id"]
        kind, text = (call["type"], "input") if call["type"] == "custom" else ("function", "arguments")
        known, more = call.setdefault(kind, {"name": "", text: ""}), piece.get(kind) or {}
        known["name"] = more.get("name") or known["name"]
        fragment = more.get(text)
        known[text] += fragment if isinstance(fragment, str) else msgspec.json.encode(fragment).decode() if fragment else ""

    def _final_events(self) -> Iterator[Event]:
        if self._is_structured and self._text:
            yield ArtifactPiece(Artifact(ANSWER, (_structured_part(self._text),)))
        elif self._notes:
            yield ArtifactPiece(Artifact(ANSWER, (Part(text="", metadata={CITATIONS_KEY: self._notes}),)), append=True)
        if self._files:
            yield ArtifactPiece(Artifact("files", tuple(self._files)))
        yield self._ending()

    def _ending(self) -> Event:
        if self._refusal:
            return Failed(REFUSED_TEXT, agent_message(self._refusal), rejected=True)
        if self._has_legacy_call:  # a call without an id, whose result can't be returned
            return Failed(UNSUPPORTED_ACTION_TEXT, detail="function_call")
        if self._finish_reason not in FINISH_REASONS:
            return failure_for_code(self._finish_reason, f"finish_reason {self._finish_reason}")
        if self._calls:
            return Ask(prompts=tuple(map(_build_prompt, self._calls.values())))
        figures = {
            name: self._figures[vendor_name]
            for name, vendor_name in USAGE_FIELDS.items()
            if isinstance(self._figures.get(vendor_name), int)
        }
        return Done(metadata=token_usage_metadata(self._model, **figures) if figures else None)

    def _note_usage(self, answer: Mapping[str, Any]) -> None:
        self._model = answer.get("model") or self._model
        self._figures = answer.get("usage") or self._figures

    def _failure(self, error: Any) -> Failed:
        failure = failure_from_error(error)
        if failure.reason == AGENT_FAILED_TEXT and self._status >= 400:
            return Failed(NOT_ACCEPTED_TEXT, detail=failure.detail, kind=UPSTREAM)
        return failure


def _build_prompt(call: Mapping[str, Any]) -> Prompt:
    return open_call_prompt(
        {"call_id": call["id"], **(call["custom"] if call["type"] == "custom" else call["function"])}, token=call["type"]
    )


def _structured_part(text: str) -> Part:
    try:
        return Part(data=msgspec.json.decode(text), media_type="application/json")
    except (ValueError, RecursionError):
        return Part(text=text)


def _file(url: str) -> Part:
    head, found, data = url.partition(";base64,")
    return Part(raw=data, media_type=head.removeprefix("data:")) if found and head.startswith("data:") else Part(url=url)


def _citation(annotation: Mapping[str, Any]) -> dict[str, Any]:
    return {name: annotation[name] for name in ("url", "title") if annotation.get(name)}
