"""llama-agents: a workflow's run is a handler, whose events tell of answers and of the input that it waits for; its status does not."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final

from msgspec.structs import replace
from pydantic import Field

from adapters.contract import ArtifactPiece, Ask, Canceled, Done, Event, Failed, Prompt, Ref, Turn, VendorRef
from adapters.task import Artifact, Message, Part, text_of
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, SkillFacts, Vendor, VendorOptions, read
from adapters.vendors.sdk.chat_content import question_in
from adapters.vendors.sdk.connection import Line, Request, quoted
from adapters.vendors.sdk.faults import FAILED
from adapters.vendors.sdk.frames import End, Frame, JsonBody, NdjsonLine, SseFrame

ASKS: Final = "InputRequiredEvent"
ANSWERS: Final = "HumanResponseEvent"
STOPS: Final = "StopEvent"
FAILS: Final = frozenset({"WorkflowFailedEvent", "WorkflowTimedOutEvent"})
CANCELS: Final = "WorkflowCancelledEvent"
ANSWER: Final = "answer"  # the artifact


class LlamaAgentsOptions(VendorOptions):
    """`text`: the member of the start event that a text becomes. `answers`: the class of a question -> that of its answer.

    `pieces`: the class of an event -> its member that is a piece of the answer.
    """

    workflow: str
    text: str = "message"
    answers: dict[str, str] = Field(default_factory=dict)
    pieces: dict[str, str] = Field(default_factory=dict)


class LlamaAgents:
    """Each task is a run of its own; workflows have no sessions."""

    kind: ClassVar[str] = "llama-agents"
    features: ClassVar[Features] = Features(
        streams=True, cancels=True, resumes=True, polls=True, parallel=True, questions=OpenQuestions.EACH
    )
    options: ClassVar[type[VendorOptions]] = LlamaAgentsOptions

    async def describe(self, line: Line[LlamaAgentsOptions]) -> AgentFacts:
        name = line.options.workflow
        schemas = await line.json(Request("GET", f"/workflows/{quoted(name)}/schema"))
        about = f"The workflow {name}."
        return AgentFacts(name, about, skills=(SkillFacts(name, name, about, schema=schemas.get("start")),))

    async def run(self, turn: Turn, line: Line[LlamaAgentsOptions]) -> AsyncIterator[Event]:
        handler, after = turn.ref.task_id if turn.ref else "", -1
        for each in turn.answers:
            value = each.value if isinstance(each.value, dict) else {"response": each.value}
            after = max(after, int(each.prompt.token["after"]))
            sent = {"event": {"type": each.prompt.token["type"], "value": value}}
            await line.ask(Request("POST", f"/events/{quoted(handler)}", sent, also=(409,)))  # it ended meanwhile: how, is read next
        if not turn.answers:
            start = {"start_event": _start(turn.message, line.options.text)}
            begun = await line.json(Request("POST", f"/workflows/{quoted(line.options.workflow)}/run-nowait", start))
            handler = str(begun["handler_id"])
        ref = VendorRef("", handler, {"after": after})
        yield Ref(ref)
        async for event in self.join(ref, line):
            yield event

    async def join(self, ref: VendorRef, line: Line[LlamaAgentsOptions]) -> AsyncIterator[Event]:
        """A run tells its events again, from the one on that was answered last."""
        after = int(ref.extra.get("after", -1))
        reader = WorkflowReader(line.options.pieces, after)
        async with aclosing(read(reader, _frames(line, ref.task_id, after))) as events:
            async for event in events:
                yield await _asking(event, line) if isinstance(event, Ask) else event

    async def poll(self, ref: VendorRef, line: Line[LlamaAgentsOptions]) -> AsyncIterator[Event]:
        """A workflow that waits may run out of time, or be answered by others."""
        for event in WorkflowReader().take(JsonBody(await _state(line, ref.task_id))):
            yield event

    async def cancel(self, ref: VendorRef, line: Line[LlamaAgentsOptions]) -> CancelOutcome:
        told = await line.ask(Request("POST", f"/handlers/{quoted(ref.task_id)}/cancel", also=(404,)))
        if told.status == 404:
            return CancelOutcome.TOO_LATE
        outcomes = {"cancelled": CancelOutcome.CANCELED, "completed": CancelOutcome.TOO_LATE, "failed": CancelOutcome.TOO_LATE}
        return outcomes.get((await _state(line, ref.task_id))["status"], CancelOutcome.UNKNOWN)


def _start(message: Message, member: str) -> dict[str, Any]:
    """Objects are members of the start event; what the person says is one more."""
    given = {name: value for part in message.parts if isinstance(part.data, dict) for name, value in part.data.items()}
    text = text_of(message.parts)
    return {**given, member: text} if text else given


async def _state(line: Line[LlamaAgentsOptions], handler: str) -> Any:
    """Of a run; one that failed is told with the status of a server that does."""
    return await line.json(Request("GET", f"/handlers/{quoted(handler)}", also=(500,)))


async def _frames(line: Line[LlamaAgentsOptions], handler: str, after: int) -> AsyncGenerator[Frame, None]:
    """The events after one of them, and how the run stands where they end without an outcome."""
    path = f"/events/{quoted(handler)}?sse=true&after_sequence={after}"
    async with aclosing(line.frames(Request("GET", path))) as frames:
        async for frame in frames:
            if isinstance(frame, End) and frame.clean:
                yield JsonBody(await _state(line, handler))
            yield frame


async def _asking(ask: Ask, line: Line[LlamaAgentsOptions]) -> Ask:
    """With the class of each answer, and its schema."""
    known = await line.ask(Request("GET", f"/workflows/{quoted(line.options.workflow)}/events", also=(404,)))
    schemas = {each.get("title"): each for each in known.value["events"]} if known.status != 404 else {}
    prompts = []
    for prompt in ask.prompts:
        wanted = line.options.answers.get(prompt.token["asks"], ANSWERS)
        schema = schemas.get(wanted) or {}
        token = {"after": prompt.token["after"], "type": wanted}
        prompts.append(replace(prompt, schema=schema if schema.get("properties") else None, token=token))
    return Ask(prompts=tuple(prompts))


class WorkflowReader:
    """Of a run's events, or of its state. `after`: the number of an event that was read before, with all that came before it."""

    def __init__(self, pieces: Mapping[str, str] | None = None, after: int = -1) -> None:
        self._pieces = pieces or {}
        self._after = after
        self._text = ""

    def take(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case SseFrame():
                number = int(frame.id) if frame.id else -1
                if not frame.id or number > self._after:
                    yield from self._event(frame.json(), number)
            case NdjsonLine(value):
                yield from self._event(value, -1)
            case JsonBody({"status": "completed", "result": dict(result)}):
                yield from self._event({"types": [STOPS], **result}, -1)
            case JsonBody({"status": "cancelled"}):
                yield Canceled()
            case JsonBody({"status": "failed" | "completed"} as state):
                yield Failed(FAILED, detail=str(state.get("error") or "no readable result"))

    def _event(self, event: Mapping[str, Any], number: int) -> Iterator[Event]:
        name, value = str(event.get("type")), event.get("value") or {}
        kinds = {name, *(event.get("types") or ())}
        if name in FAILS:
            yield Failed(FAILED, detail=f"{name}: {value}")
        elif name == CANCELS:
            yield Canceled()
        elif STOPS in kinds:
            yield from self._stopped(value)
            yield Done()
        elif ASKS in kinds:
            text = question_in(value) or str(value.get("prefix") or "")
            yield Ask(prompts=(Prompt(f"{name}-{number}", text, value or None, token={"asks": name, "after": number}),))
        elif piece := str(value.get(self._pieces.get(name, "")) or ""):
            yield ArtifactPiece(Artifact(ANSWER, (Part(text=piece),)), append=bool(self._text), last_chunk=False)
            self._text += piece

    def _stopped(self, value: Mapping[str, Any]) -> Iterator[Event]:
        """One text is a text, in whatever member; pieces of it that came before are replaced where it says something else."""
        only = next(iter(value.values())) if len(value) == 1 else None
        answer = value["result"] if value.keys() == {"result"} else only if isinstance(only, str) else value
        if isinstance(answer, str):
            if answer and answer != self._text:
                yield ArtifactPiece(Artifact(ANSWER, (Part(text=answer),)))
        elif answer:
            name = ANSWER if not self._text else "result"
            yield ArtifactPiece(Artifact(name, (Part(data=answer, media_type="application/json"),)))


_: type[Vendor] = LlamaAgents
