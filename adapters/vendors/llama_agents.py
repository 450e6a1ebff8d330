"""llama-agents: a workflow's run is a handler; its events have answers and requested input, which its status lacks."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final

from msgspec.structs import replace
from pydantic import Field

from adapters.contract import ArtifactPiece, Ask, Canceled, Done, Event, Failed, Prompt, RefLearned, Turn, VendorRef
from adapters.task import Artifact, Message, Part, text_of
from adapters.vendors.sdk.agent import AgentFacts, CancelOutcome, Features, OpenQuestions, SkillFacts, Vendor, VendorOptions, read_events
from adapters.vendors.sdk.chat_content import question_text
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment
from adapters.vendors.sdk.faults import AGENT_FAILED_TEXT
from adapters.vendors.sdk.frames import End, Frame, JsonBody, NdjsonLine, SseFrame

INPUT_EVENT: Final = "InputRequiredEvent"
ANSWER_EVENT: Final = "HumanResponseEvent"
STOP_EVENT: Final = "StopEvent"
FAILURE_EVENTS: Final = frozenset({"WorkflowFailedEvent", "WorkflowTimedOutEvent"})
CANCELED_EVENT: Final = "WorkflowCancelledEvent"
ANSWER: Final = "answer"  # the artifact's id


class LlamaAgentsOptions(VendorOptions):
    """Options. `text`: the start event's member for a message's text. `answers`: the class of a question -> the class of its answer.

    `pieces`: the class of an event -> its member that is a piece of the answer.
    """

    workflow: str
    text: str = "message"
    answers: dict[str, str] = Field(default_factory=dict)
    pieces: dict[str, str] = Field(default_factory=dict)


class LlamaAgents:
    """The llama-agents vendor: each task is one run; workflows have no sessions."""

    kind: ClassVar[str] = "llama-agents"
    features: ClassVar[Features] = Features(
        streams=True, cancels=True, resumes=True, polls=True, parallel=True, questions=OpenQuestions.EACH
    )
    options: ClassVar[type[VendorOptions]] = LlamaAgentsOptions

    async def describe(self, connection: VendorConnection[LlamaAgentsOptions]) -> AgentFacts:
        name = connection.options.workflow
        schemas = await connection.request_json(Request("GET", f"/workflows/{quote_segment(name)}/schema"))
        description = f"The workflow {name}."
        return AgentFacts(name, description, skills=(SkillFacts(name, name, description, schema=schemas.get("start")),))

    async def run(self, turn: Turn, connection: VendorConnection[LlamaAgentsOptions]) -> AsyncIterator[Event]:
        handler, after = turn.ref.task_id if turn.ref else "", -1
        for each in turn.answers:
            value = each.value if isinstance(each.value, dict) else {"response": each.value}
            after = max(after, int(each.prompt.token["after"]))
            sent = {"event": {"type": each.prompt.token["type"], "value": value}}
            await connection.request(
                Request("POST", f"/events/{quote_segment(handler)}", sent, accepted_statuses=(409,))
            )  # it has ended: the events that follow tell how
        if not turn.answers:
            start = {"start_event": _start_event(turn.message, connection.options.text)}
            begun = await connection.request_json(
                Request("POST", f"/workflows/{quote_segment(connection.options.workflow)}/run-nowait", start)
            )
            handler = str(begun["handler_id"])
        ref = VendorRef("", handler, {"after": after})
        yield RefLearned(ref)
        async for event in self.reattach(ref, connection):
            yield event

    async def reattach(self, ref: VendorRef, connection: VendorConnection[LlamaAgentsOptions]) -> AsyncIterator[Event]:
        """Reads a run's events again, from the one that was answered last."""
        after = int(ref.extra.get("after", -1))
        reader = WorkflowReader(connection.options.pieces, after)
        async with aclosing(read_events(reader, _event_frames(connection, ref.task_id, after))) as events:
            async for event in events:
                yield await _with_answer_schemas(event, connection) if isinstance(event, Ask) else event

    async def poll(self, ref: VendorRef, connection: VendorConnection[LlamaAgentsOptions]) -> AsyncIterator[Event]:
        """Reads the run's state: a waiting workflow may expire, or be answered elsewhere."""
        for event in WorkflowReader().read(JsonBody(await _fetch_state(connection, ref.task_id))):
            yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[LlamaAgentsOptions]) -> CancelOutcome:
        answer = await connection.request(Request("POST", f"/handlers/{quote_segment(ref.task_id)}/cancel", accepted_statuses=(404,)))
        if answer.status == 404:
            return CancelOutcome.TOO_LATE
        outcomes = {"cancelled": CancelOutcome.CANCELED, "completed": CancelOutcome.TOO_LATE, "failed": CancelOutcome.TOO_LATE}
        return outcomes.get((await _fetch_state(connection, ref.task_id))["status"], CancelOutcome.UNKNOWN)


def _start_event(message: Message, member: str) -> dict[str, Any]:
    """The start event: objects are merged as members, and the text is one more."""
    data_members = {name: value for part in message.parts if isinstance(part.data, dict) for name, value in part.data.items()}
    text = text_of(message.parts)
    return {**data_members, member: text} if text else data_members


async def _fetch_state(connection: VendorConnection[LlamaAgentsOptions], handler: str) -> Any:
    """The state of a run. The server sends a failed run's state with status 500."""
    return await connection.request_json(Request("GET", f"/handlers/{quote_segment(handler)}", accepted_statuses=(500,)))


async def _event_frames(connection: VendorConnection[LlamaAgentsOptions], handler: str, after: int) -> AsyncGenerator[Frame, None]:
    """Yields the events after a number, and the run's state where the stream ends without an outcome."""
    path = f"/events/{quote_segment(handler)}?sse=true&after_sequence={after}"
    async with aclosing(connection.stream_frames(Request("GET", path))) as frames:
        async for frame in frames:
            if isinstance(frame, End) and frame.is_clean:
                yield JsonBody(await _fetch_state(connection, handler))
            yield frame


async def _with_answer_schemas(ask: Ask, connection: VendorConnection[LlamaAgentsOptions]) -> Ask:
    """Adds the class of each answer, and its schema."""
    known = await connection.request(
        Request("GET", f"/workflows/{quote_segment(connection.options.workflow)}/events", accepted_statuses=(404,))
    )
    schemas = {each.get("title"): each for each in known.value["events"]} if known.status != 404 else {}
    prompts = []
    for prompt in ask.prompts:
        wanted = connection.options.answers.get(prompt.token["asks"], ANSWER_EVENT)
        schema = schemas.get(wanted) or {}
        token = {"after": prompt.token["after"], "type": wanted}
        prompts.append(replace(prompt, schema=schema if schema.get("properties") else None, token=token))
    return Ask(prompts=tuple(prompts))


class WorkflowReader:
    """Reads the events of a run, or its state. `after`: the number of the last event that was read before."""

    def __init__(self, piece_members: Mapping[str, str] | None = None, after: int = -1) -> None:
        self._piece_members = piece_members or {}
        self._after = after
        self._text = ""

    def read(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case SseFrame():
                number = int(frame.id) if frame.id else -1
                if not frame.id or number > self._after:
                    yield from self._read_event(frame.json(), number)
            case NdjsonLine(value):
                yield from self._read_event(value, -1)
            case JsonBody({"status": "completed", "result": dict(result)}):
                yield from self._read_event({"types": [STOP_EVENT], **result}, -1)
            case JsonBody({"status": "cancelled"}):
                yield Canceled()
            case JsonBody({"status": "failed" | "completed"} as state):
                yield Failed(AGENT_FAILED_TEXT, detail=str(state.get("error") or "no readable result"))

    def _read_event(self, event: Mapping[str, Any], number: int) -> Iterator[Event]:
        name, value = str(event.get("type")), event.get("value") or {}
        kinds = {name, *(event.get("types") or ())}
        if name in FAILURE_EVENTS:
            yield Failed(AGENT_FAILED_TEXT, detail=f"{name}: {value}")
        elif name == CANCELED_EVENT:
            yield Canceled()
        elif STOP_EVENT in kinds:
            yield from self._result_events(value)
            yield Done()
        elif INPUT_EVENT in kinds:
            text = question_text(value) or str(value.get("prefix") or "")
            yield Ask(prompts=(Prompt(f"{name}-{number}", text, value or None, token={"asks": name, "after": number}),))
        elif piece := str(value.get(self._piece_members.get(name, "")) or ""):
            yield ArtifactPiece(Artifact(ANSWER, (Part(text=piece),)), append=bool(self._text), last_chunk=False)
            self._text += piece

    def _result_events(self, value: Mapping[str, Any]) -> Iterator[Event]:
        """Sends the result. A single text is an answer, whatever its member is called; it replaces pieces that differ from it."""
        only = next(iter(value.values())) if len(value) == 1 else None
        answer = value["result"] if value.keys() == {"result"} else only if isinstance(only, str) else value
        if isinstance(answer, str):
            if answer and answer != self._text:
                yield ArtifactPiece(Artifact(ANSWER, (Part(text=answer),)))
        elif answer:
            name = ANSWER if not self._text else "result"
            yield ArtifactPiece(Artifact(name, (Part(data=answer, media_type="application/json"),)))


_: type[Vendor] = LlamaAgents
