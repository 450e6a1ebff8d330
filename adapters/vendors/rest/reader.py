"""Answers of an agent of plain HTTP, read by the expressions of its operator."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import UNSET

from adapters.contract import CITATIONS, ArtifactPiece, Ask, Canceled, Done, Event, Failed, Progress, Ref, VendorRef, usage
from adapters.task import Artifact, Part
from adapters.vendors.rest.expressions import compiled
from adapters.vendors.rest.options import Answered
from adapters.vendors.sdk.agent import said
from adapters.vendors.sdk.faults import FAILED
from adapters.vendors.sdk.frames import End, Frame, JsonBody, NdjsonLine, SseFrame

ANSWER: Final = "answer"


class RestReader:
    """Of one JSON answer, or of a stream of them. Where no state says that a turn is over, the end of what has an output does."""

    def __init__(self, answer: Answered, session: str, run: str = "", awaited: bool = False) -> None:
        self._answer = answer
        self._streamed = ""
        self._found: dict[str, Any] = {}  # output, files and citations, as they were told last
        self._figures: dict[str, Any] = {}
        self._progress = ""
        self.session = session
        self.run = run
        self._awaited = awaited  # its name, by whoever stops it

    @property
    def ref(self) -> VendorRef:
        """A turn without a name goes by its session, so that none is taken for another's, unless its name is awaited."""
        return VendorRef(self.session, self.run or ("" if self._awaited else self.session))

    def take(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case JsonBody(value) | NdjsonLine(value):
                yield from self._event(value, "")
            case SseFrame(name, data) if data.strip():
                ending = self._answer.states.of(data.strip()[:100])
                yield from self._over(ending) if ending else self._event(frame.json(), name)
            case End() if not self._answer.states.done and (self._streamed or self._found.get("output") is not None):
                yield from self._done()

    def polled(self, value: Any) -> Iterator[Event]:
        """A turn that is in no known state is not asked for ever. Raises ValueError."""
        yield from self._event(value, "")
        if not self.state(value):
            raise ValueError(f"the state {self._at('status', value)!r} is none that is known")

    def state(self, value: Any, name: str = "") -> str:
        return self._answer.states.of(self._at("status", value), name)

    def _event(self, value: Any, name: str) -> Iterator[Event]:
        session, run = self._at("session", value) or self.session, self._at("run", value) or self.run
        if (session, run) != (self.session, self.run):
            self.session, self.run = str(session), str(run)
            yield Ref(self.ref)
        state, error = self.state(value, name), self._at("error", value)
        if error or state == "failed":
            yield Failed(FAILED, detail=str(error or self._at("status", value) or name))
            return
        self._found |= {each: found for each in ("output", "files", "citations") if (found := self._at(each, value)) is not None}
        self._figures |= self._answer.usage.told(value)
        yield from self._piece(self._at("delta", value), self._at("progress", value))
        prompts = tuple(self._answer.questions.prompts(value)) if self._answer.questions else ()
        if prompts:
            yield Ask(prompts=prompts)
        else:
            yield from self._over(state)

    def _piece(self, delta: Any, progress: Any) -> Iterator[Event]:
        if isinstance(delta, str) and delta:
            yield ArtifactPiece(Artifact(ANSWER, (Part(text=delta),)), append=bool(self._streamed), last_chunk=False)
            self._streamed += delta
        if isinstance(progress, str) and progress not in ("", self._progress):
            self._progress = progress
            yield Progress(said(progress))

    def _over(self, state: str) -> Iterator[Event]:
        if state == "failed":
            yield Failed(FAILED)
        elif state == "canceled":
            yield Canceled()
        elif state == "done":
            yield from self._done()

    def _done(self) -> Iterator[Event]:
        """What was streamed is not said again, unless the whole is something else or has more to it."""
        output, citations = self._found.get("output"), self._found.get("citations")
        if output is None:
            output = self._streamed or None
        files = tuple(map(_file, self._found.get("files") or ()))
        known = output is None or (output == self._streamed and not citations)
        parts = files if known else (_part(output, citations), *files)
        if parts:
            yield ArtifactPiece(Artifact(ANSWER, parts), append=known and bool(self._streamed))
        yield Done(metadata=usage(**self._figures))

    def _at(self, name: str, value: Any) -> Any:
        place = getattr(self._answer, name)
        return None if place is None else compiled(place)(value)


def _part(output: Any, citations: Any) -> Part:
    notes = {CITATIONS: citations} if isinstance(citations, list) and citations else UNSET
    return (
        Part(text=output, metadata=notes) if isinstance(output, str) else Part(data=output, media_type="application/json", metadata=notes)
    )


def _file(file: Mapping[str, Any]) -> Part:
    kind, name = file.get("mediaType") or "", file.get("name") or ""
    if file.get("base64"):
        return Part(raw=file["base64"], media_type=kind, filename=name)
    return Part(url=file["url"], media_type=kind, filename=name)
