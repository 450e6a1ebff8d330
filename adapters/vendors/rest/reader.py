"""Reads the responses of an agent with a JSON API by the operator's expressions."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import UNSET

from adapters.contract import (
    CITATIONS_KEY,
    ArtifactPiece,
    Ask,
    Canceled,
    Done,
    Event,
    Failed,
    Progress,
    RefLearned,
    VendorRef,
    token_usage_metadata,
)
from adapters.task import Artifact, Part
from adapters.vendors.rest.expressions import compile_expression
from adapters.vendors.rest.options import AnswerExpressions
from adapters.vendors.sdk.agent import agent_message
from adapters.vendors.sdk.faults import AGENT_FAILED_TEXT
from adapters.vendors.sdk.frames import End, Frame, JsonBody, NdjsonLine, SseFrame

ANSWER: Final = "answer"


class RestReader:
    """Reads one JSON response, or a stream of them. Without states, the end of a body with an output ends the turn."""

    def __init__(self, answer: AnswerExpressions, session: str, run: str = "", is_run_awaited: bool = False) -> None:
        self._answer = answer
        self._streamed = ""
        self._latest_values: dict[str, Any] = {}  # the latest output, files and citations
        self._figures: dict[str, Any] = {}
        self._progress = ""
        self.session = session
        self.run = run
        self._is_run_awaited = is_run_awaited  # whether a cancellation needs the run's id

    @property
    def ref(self) -> VendorRef:
        """The ids of the turn. A turn without an id has its session's, so that it is not mistaken for another, unless its id is awaited."""
        return VendorRef(self.session, self.run or ("" if self._is_run_awaited else self.session))

    def read(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case JsonBody(value) | NdjsonLine(value):
                yield from self._read_event(value, "")
            case SseFrame(name, data) if data.strip():
                ending = self._answer.states.state_for(data.strip()[:100])
                yield from self._events_for_state(ending) if ending else self._read_event(frame.json(), name)
            case End() if not self._answer.states.done and (self._streamed or self._latest_values.get("output") is not None):
                yield from self._done_events()

    def read_poll(self, value: Any) -> Iterator[Event]:
        """Reads a poll. Raises ValueError for an unknown state, which would otherwise be polled for ever."""
        yield from self._read_event(value, "")
        if not self.state_of(value):
            raise ValueError(f"the state {self._find('status', value)!r} is unknown")

    def state_of(self, value: Any, name: str = "") -> str:
        return self._answer.states.state_for(self._find("status", value), name)

    def _read_event(self, value: Any, name: str) -> Iterator[Event]:
        session, run = self._find("session", value) or self.session, self._find("run", value) or self.run
        if (session, run) != (self.session, self.run):
            self.session, self.run = str(session), str(run)
            yield RefLearned(self.ref)
        state, error = self.state_of(value, name), self._find("error", value)
        if error or state == "failed":
            yield Failed(AGENT_FAILED_TEXT, detail=str(error or self._find("status", value) or name))
            return
        self._latest_values |= {each: found for each in ("output", "files", "citations") if (found := self._find(each, value)) is not None}
        self._figures |= self._answer.usage.find_figures(value)
        yield from self._piece_events(self._find("delta", value), self._find("progress", value))
        prompts = tuple(self._answer.questions.find_prompts(value)) if self._answer.questions else ()
        if prompts:
            yield Ask(prompts=prompts)
        else:
            yield from self._events_for_state(state)

    def _piece_events(self, delta: Any, progress: Any) -> Iterator[Event]:
        if isinstance(delta, str) and delta:
            yield ArtifactPiece(Artifact(ANSWER, (Part(text=delta),)), append=bool(self._streamed), last_chunk=False)
            self._streamed += delta
        if isinstance(progress, str) and progress not in ("", self._progress):
            self._progress = progress
            yield Progress(agent_message(progress))

    def _events_for_state(self, state: str) -> Iterator[Event]:
        if state == "failed":
            yield Failed(AGENT_FAILED_TEXT)
        elif state == "canceled":
            yield Canceled()
        elif state == "done":
            yield from self._done_events()

    def _done_events(self) -> Iterator[Event]:
        """Sends the output. Streamed text is not sent again unless the whole differs from it or has citations."""
        output, citations = self._latest_values.get("output"), self._latest_values.get("citations")
        if output is None:
            output = self._streamed or None
        files = tuple(map(_file, self._latest_values.get("files") or ()))
        known = output is None or (output == self._streamed and not citations)
        parts = files if known else (_part(output, citations), *files)
        if parts:
            yield ArtifactPiece(Artifact(ANSWER, parts), append=known and bool(self._streamed))
        yield Done(metadata=token_usage_metadata(**self._figures))

    def _find(self, name: str, value: Any) -> Any:
        place = getattr(self._answer, name)
        return None if place is None else compile_expression(place)(value)


def _part(output: Any, citations: Any) -> Part:
    notes = {CITATIONS_KEY: citations} if isinstance(citations, list) and citations else UNSET
    return (
        Part(text=output, metadata=notes) if isinstance(output, str) else Part(data=output, media_type="application/json", metadata=notes)
    )


def _file(file: Mapping[str, Any]) -> Part:
    kind, name = file.get("mediaType") or "", file.get("name") or ""
    if file.get("base64"):
        return Part(raw=file["base64"], media_type=kind, filename=name)
    return Part(url=file["url"], media_type=kind, filename=name)
