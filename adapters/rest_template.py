"""Any agent of plain HTTP and JSON, as its operator describes it: requests from templates, answers read by expressions."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final

from msgspec import UNSET

from adapters.contract import (
    CITATIONS,
    ENDINGS,
    ArtifactPiece,
    Ask,
    Canceled,
    CannotReattach,
    Done,
    Event,
    Failed,
    Progress,
    Ref,
    Turn,
    VendorRef,
    usage,
)
from adapters.expressions import compiled
from adapters.frames import End, Frame, JsonBody, NdjsonLine, SseFrame
from adapters.rest_options import Answered, Missing, Polled, RestOptions, context_of, run_of
from adapters.task import Artifact, Part
from adapters.vendor import UNFINISHED, AgentFacts, CancelOutcome, Features, OpenQuestions, SkillFacts, Vendor, VendorOptions, read, said
from adapters.vendor_faults import FAILED
from adapters.vendor_line import Line, Request

ANSWER: Final = "answer"
GONE: Final = (404, 409, 410)
OUTCOMES: Final = {"canceled": CancelOutcome.CANCELED, "done": CancelOutcome.TOO_LATE, "failed": CancelOutcome.TOO_LATE}


class RestTemplate:
    """A conversation is a name that the agent is told, or one that it tells; a turn is one request, and polls until it is over."""

    kind: ClassVar[str] = "rest"
    features: ClassVar[Features] = Features(streams=True, cancels=True, resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = RestOptions

    async def describe(self, line: Line[RestOptions]) -> AgentFacts:
        about = line.options.about
        if about.path is not None:
            await line.ask(Request("GET", about.path))
        skills = (SkillFacts("run", about.name, about.description, schema=about.input),)
        return AgentFacts(about.name, about.description, skills=skills)

    async def run(self, turn: Turn, line: Line[RestOptions]) -> AsyncIterator[Event]:
        told, ref = line.options, turn.ref or VendorRef()
        sent = (told.resume if turn.answers else None) or (told.stream if turn.stream else None) or told.start
        awaited = bool(told.answer.run and told.cancel and told.cancel.by_run)
        reader = RestReader(told.answer, ref.context_id or turn.session, run_of(ref) if turn.answers else "", awaited)
        yield Ref(reader.ref)
        frames = line.frames(sent.request(context_of(turn, line, reader.session)))
        async with aclosing(read(reader, frames)) as events:
            async for event in events:
                if told.poll and isinstance(event, Failed) and event.reason == UNFINISHED:
                    break
                yield event
            else:
                return
        async with aclosing(_polled(told.poll, reader, line)) as later:
            async for event in later:
                yield event

    async def join(self, ref: VendorRef, line: Line[RestOptions]) -> AsyncIterator[Event]:
        """By the question how a turn stands, where the operator has described one."""
        told = line.options
        if told.poll is None:
            raise CannotReattach
        reader = RestReader(told.answer, ref.context_id, run_of(ref))
        try:
            async with aclosing(_polled(told.poll, reader, line)) as events:
                async for event in events:
                    yield event
        except Missing:  # the question names the run, which the agent never told
            raise CannotReattach from None

    async def cancel(self, ref: VendorRef, line: Line[RestOptions]) -> CancelOutcome:
        told, context = line.options, {"user": line.user, "session": ref.context_id, "run": run_of(ref)}
        if told.cancel is None:
            return CancelOutcome.UNSUPPORTED
        try:
            request = told.cancel.request(context, also=GONE)
        except Missing:
            return CancelOutcome.UNSUPPORTED
        answer = await line.ask(request)
        gone, reader = answer.status in GONE, RestReader(told.answer, "")
        if told.cancel.confirms and not gone:
            return CancelOutcome.CANCELED
        state = "" if gone else reader.state(answer.value)
        if state not in OUTCOMES and told.poll:
            state = reader.state(await line.json(told.poll.request(context)))
        return OUTCOMES.get(state, CancelOutcome.TOO_LATE if gone and not state else CancelOutcome.UNKNOWN)


async def _polled(poll: Polled, reader: "RestReader", line: Line[RestOptions]) -> AsyncGenerator[Event, None]:
    """Asks how a turn stands until it is over."""
    request = poll.request({"user": line.user, "session": reader.session, "run": reader.run})
    async with aclosing(line.polled(request, poll.every)) as values:
        async for value in values:
            for event in reader.polled(value):
                yield event
                if isinstance(event, ENDINGS):
                    return


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


_: type[Vendor] = RestTemplate
