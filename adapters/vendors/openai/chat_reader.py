"""The answer of a chat completion, whole or as a stream of chunks: its text, images, calls of tools and refusal, and why it ended."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from adapters.contract import CITATIONS, ArtifactPiece, Ask, Done, Event, Failed, Prompt, usage
from adapters.task import Artifact, Part
from adapters.vendors.openai.items import open_call
from adapters.vendors.sdk.agent import said
from adapters.vendors.sdk.chat_content import text_in
from adapters.vendors.sdk.faults import FAILED, NOT_TAKEN, UPSTREAM
from adapters.vendors.sdk.frames import End, Frame, Head, JsonBody, SseFrame
from adapters.vendors.sdk.model_failures import FOREIGN, REFUSED, failure_in, failure_of

ANSWER: Final = "answer"
FIGURES: Final = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens", "total_tokens": "total_tokens"}
FINISHED: Final = ("stop", "tool_calls", "end_turn", "eos", "eos_token", "stop_sequence")  # a whole answer: OpenAI's words, then others'


class ChatReader:
    """Of one answer. A stream is over at its `[DONE]`, or where it ends after a chunk that said why the model stopped.

    `structured`: the text is JSON because the operator asked for it, so that it is told as data and not in pieces.
    """

    def __init__(self, structured: bool = False) -> None:
        self._structured = structured
        self._status = 200
        self._text = ""
        self._refusal = ""
        self._calls: dict[int, dict[str, Any]] = {}
        self._files: list[Part] = []
        self._notes: list[dict[str, Any]] = []
        self._model = ""
        self._figures: Mapping[str, Any] = {}
        self._finish = ""
        self._legacy = False

    def take(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case Head(status=status):
                self._status = status
            case JsonBody(value):
                yield from self._whole(value)
            case SseFrame(data="[DONE]"):
                yield from self._ended() if self._finish else ()
            case SseFrame(data=data) if data.strip():
                yield from self._chunk(frame.json())
            case End() if self._finish:
                yield from self._ended()

    def message(self) -> dict[str, Any]:
        """What the assistant said, as the next request repeats it."""
        calls = {"tool_calls": list(self._calls.values())} if self._calls else {}
        return {"role": "assistant", "content": self._text, **calls}

    def _whole(self, value: Mapping[str, Any]) -> Iterator[Event]:
        if value.get("error") or self._status >= 400:
            yield self._failure(value.get("error") or value)
            return
        choice = value["choices"][0]
        self._noted(value)
        self._finish = choice.get("finish_reason") or "stop"
        yield from self._said(choice["message"])
        yield from self._ended()

    def _chunk(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        if chunk.get("error"):
            yield self._failure(chunk["error"])
            return
        self._noted(chunk)
        for choice in chunk.get("choices") or ():
            if not choice.get("index"):  # the gateway asks for one choice
                yield from self._said(choice.get("delta") or {})
                self._finish = choice.get("finish_reason") or self._finish

    def _said(self, told: Mapping[str, Any]) -> Iterator[Event]:
        """What a message, or the delta of one, brings."""
        text = text_in(told.get("content"))
        if text and not self._structured:
            yield ArtifactPiece(Artifact(ANSWER, (Part(text=text),)), append=bool(self._text), last_chunk=False)
        self._text += text
        self._refusal += told.get("refusal") or ""
        self._legacy = self._legacy or bool(told.get("function_call"))
        self._files += [_file(each["image_url"]["url"]) for each in told.get("images") or ()]
        self._notes += [_citation(each["url_citation"]) for each in told.get("annotations") or () if each.get("type") == "url_citation"]
        for place, call in enumerate(told.get("tool_calls") or ()):
            self._called(call.get("index", place), call)

    def _called(self, place: int, piece: Mapping[str, Any]) -> None:
        """Adds a piece of a call: its id and name come once, its arguments bit by bit."""
        call = self._calls.setdefault(place, {"id": "", "type": piece.get("type") or "function"})
        call["id"] = piece.get("id") or call["id"]
        kind, text = (call["type"], "input") if call["type"] == "custom" else ("function", "arguments")
        known, more = call.setdefault(kind, {"name": "", text: ""}), piece.get(kind) or {}
        known["name"] = more.get("name") or known["name"]
        given = more.get(text)
        known[text] += given if isinstance(given, str) else msgspec.json.encode(given).decode() if given else ""

    def _ended(self) -> Iterator[Event]:
        if self._structured and self._text:
            yield ArtifactPiece(Artifact(ANSWER, (_structured(self._text),)))
        elif self._notes:
            yield ArtifactPiece(Artifact(ANSWER, (Part(text="", metadata={CITATIONS: self._notes}),)), append=True)
        if self._files:
            yield ArtifactPiece(Artifact("files", tuple(self._files)))
        yield self._ending()

    def _ending(self) -> Event:
        if self._refusal:
            return Failed(REFUSED, said(self._refusal), rejected=True)
        if self._legacy:  # a call without an id, whose result could not be given back
            return Failed(FOREIGN, detail="function_call")
        if self._finish not in FINISHED:
            return failure_of(self._finish, f"finish_reason {self._finish}")
        if self._calls:
            return Ask(prompts=tuple(map(_prompt, self._calls.values())))
        figures = {ours: self._figures[theirs] for ours, theirs in FIGURES.items() if isinstance(self._figures.get(theirs), int)}
        return Done(metadata=usage(self._model, **figures) if figures else None)

    def _noted(self, value: Mapping[str, Any]) -> None:
        self._model = value.get("model") or self._model
        self._figures = value.get("usage") or self._figures

    def _failure(self, error: Any) -> Failed:
        failure = failure_in(error)
        if failure.reason == FAILED and self._status >= 400:
            return Failed(NOT_TAKEN, detail=failure.detail, kind=UPSTREAM)
        return failure


def _prompt(call: Mapping[str, Any]) -> Prompt:
    return open_call({"call_id": call["id"], **(call["custom"] if call["type"] == "custom" else call["function"])}, token=call["type"])


def _structured(text: str) -> Part:
    try:
        return Part(data=msgspec.json.decode(text), media_type="application/json")
    except (ValueError, RecursionError):
        return Part(text=text)


def _file(url: str) -> Part:
    head, found, data = url.partition(";base64,")
    return Part(raw=data, media_type=head.removeprefix("data:")) if found and head.startswith("data:") else Part(url=url)


def _citation(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in ("url", "title") if told.get(name)}
