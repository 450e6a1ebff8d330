"""LangGraph Agent Server: a graph's runs on a thread, its interrupts as prompts, their answers as the command of the next run."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, Final

from adapters.chat_content import text_in
from adapters.contract import AgentFault, ArtifactPiece, Ask, Canceled, Done, Event, Failed, Ref, Turn, UpstreamFault, VendorRef
from adapters.frames import End, Frame, Head, JsonBody, SseFrame
from adapters.graph_messages import MESSAGES, id_of, input_of, prompt_of, usage_of
from adapters.task import Artifact, Part
from adapters.vendor import UNFINISHED, AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, parse, read
from adapters.vendor_faults import FAILED, UNKNOWN, UPSTREAM
from adapters.vendor_line import Line, Request, quoted

INTERRUPT: Final = "__interrupt__"
ERROR: Final = "__error__"
LOOK_SECONDS: Final = 5.0  # that a run may take to say how it ended
JOIN_SECONDS: Final = 1.0  # between two questions how a run stands that another process began
STATE: Final = "state"  # the artifact of what a graph's state has beside its messages


class LangGraphOptions(VendorOptions):
    """`assistant`: a graph's name, or an assistant's id. `nodes`: those whose tokens are the answer; none named: all."""

    assistant: str
    nodes: tuple[str, ...] = ()


class LangGraph:
    """A thread is a conversation, a run is a turn."""

    kind: ClassVar[str] = "langgraph"
    features: ClassVar[Features] = Features(streams=True, cancels=True, resumes=True, files=True, questions=OpenQuestions.ONE)
    options: ClassVar[type[VendorOptions]] = LangGraphOptions

    async def describe(self, line: Line[LangGraphOptions]) -> AgentFacts:
        wanted = line.options.assistant
        found = await line.json(Request("POST", "/assistants/search", {"graph_id": wanted}))
        found = found or [await line.json(Request("GET", f"/assistants/{quoted(wanted)}"))]
        if not found:
            raise AgentFault(UPSTREAM, UNKNOWN, "no such assistant")
        name = str(found[0]["name"] or wanted)
        return AgentFacts(name, str(found[0].get("description") or f"The LangGraph assistant {name}."))

    async def run(self, turn: Turn, line: Line[LangGraphOptions]) -> AsyncIterator[Event]:
        thread = (turn.ref.context_id if turn.ref else "") or str((await line.json(Request("POST", "/threads", {})))["thread_id"])
        yield Ref(VendorRef(thread))
        modes = ["updates", "messages-tuple", "values"] if turn.stream else ["updates", "values"]
        body = {"assistant_id": line.options.assistant, **input_of(turn), "stream_mode": modes, "multitask_strategy": "reject"}
        frames, ref = line.frames(Request("POST", f"/threads/{quoted(thread)}/runs/stream", body)), VendorRef()
        async with aclosing(read(GraphReader(thread, line.options.nodes), frames)) as events:
            async for event in events:
                ref = event.ref if isinstance(event, Ref) else ref
                yield await _ending(event, ref, line) if _only_ends(event) and ref.task_id else event

    async def join(self, ref: VendorRef, line: Line[LangGraphOptions]) -> AsyncIterator[Event]:
        """Asks how the run stands until it is over; what it came to is the state of its thread, which takes one run at a time."""
        async with aclosing(line.polled(Request("GET", _place(ref)), JOIN_SECONDS)) as runs:
            async for run in runs:
                if run["status"] not in ("pending", "running"):
                    break
        thread = await line.json(Request("GET", f"/threads/{quoted(ref.context_id)}"))
        asked = [each for found in (thread.get("interrupts") or {}).values() for each in found]
        if run["status"] == "interrupted" and not asked:
            yield Canceled()
        elif run["status"] in ("error", "timeout"):
            yield Failed(FAILED, detail=f"the run ended as {run['status']}")
        else:
            state = {**(thread.get("values") or {}), INTERRUPT: asked}
            for event in parse(GraphReader(ref.context_id, line.options.nodes), (JsonBody(state), End(True))):
                yield event

    async def cancel(self, ref: VendorRef, line: Line[LangGraphOptions]) -> CancelOutcome:
        """A run that has been interrupted by its own graph waits, so there is nothing to be stopped."""
        run = _place(ref)
        before = (await line.json(Request("GET", run)))["status"]
        if before not in ("pending", "running"):
            return CancelOutcome.UNSUPPORTED if before == "interrupted" else CancelOutcome.TOO_LATE
        await line.ask(Request("POST", f"{run}/cancel?wait=true", also=(404, 409)))
        after = (await line.json(Request("GET", run)))["status"]
        unknown = CancelOutcome.UNKNOWN
        return {"interrupted": CancelOutcome.CANCELED, "pending": unknown, "running": unknown}.get(after, CancelOutcome.TOO_LATE)


def _place(run: VendorRef) -> str:
    return f"/threads/{quoted(run.context_id)}/runs/{quoted(run.task_id)}"


def _only_ends(event: Event) -> bool:
    """The stream of a run that somebody canceled, here or elsewhere, ends as if all was said, or nothing."""
    return isinstance(event, Done) or (isinstance(event, Failed) and event.reason == UNFINISHED)


async def _ending(told: Event, run: VendorRef, line: Line[LangGraphOptions]) -> Event:
    """As the run itself has it, which knows by the end of its stream; as told, where it can't be asked."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            status = (await line.json(Request("GET", _place(run))))["status"]
    except (UpstreamFault, TimeoutError):
        return told
    if status == "interrupted":
        return Canceled()
    return Failed(FAILED, detail=f"the run ended as {status}") if status in ("error", "timeout") else told


class GraphReader:
    """Of a stream of `updates`, `messages` and `values`, or of the body of a wait. There is no end marker: the end of the body is it."""

    def __init__(self, thread: str, nodes: tuple[str, ...] = ()) -> None:
        self._thread, self._nodes = thread, nodes
        self._run = ""
        self._old: set[str] | None = None  # messages from before this run
        self._state: dict[str, Any] = {}
        self._before: dict[str, Any] = {}
        self._interrupts: dict[str, dict[str, Any]] = {}  # by their ids: nodes that run side by side ask one after another
        self._streamed: dict[str, str] = {}  # text by the id of its message
        self._moved = False

    def take(self, frame: Frame) -> Iterator[Event]:
        match frame:
            case Head(headers):
                yield from self._named(headers.get("content-location", "").rpartition("/runs/")[2])
            case JsonBody(value):
                self._old, self._moved = set(), True
                yield from self._values(value)
            case SseFrame(event):
                yield from self._event(event.partition("|")[0], frame.json())
            case End() if self._moved:
                yield from self._end()

    def _named(self, run: str) -> Iterator[Event]:
        if run and run != self._run:
            self._run = run
            yield Ref(VendorRef(self._thread, run))

    def _event(self, name: str, data: Any) -> Iterator[Event]:
        if name == "metadata":
            yield from self._named(str(data["run_id"]))
        elif name == "error":
            yield _failed(data)
        elif name == "values":
            yield from self._values(data)
        elif name == "updates":
            self._updated(data)
        elif name == "messages":
            yield from self._token(*data)

    def _values(self, state: dict[str, Any]) -> Iterator[Event]:
        if ERROR in state:
            yield _failed(state[ERROR])
            return
        rest = {name: value for name, value in state.items() if name != INTERRUPT}
        if self._old is None:
            self._old, self._before = {id_of(each) for each in rest.get(MESSAGES, [])}, rest
        else:
            self._moved = True
        self._state = rest
        self._asked(state)

    def _updated(self, update: dict[str, Any]) -> None:
        """What values say again, where they come too."""
        self._moved = True
        self._asked(update)
        for name, changed in update.items():
            if name != INTERRUPT and isinstance(changed, dict) and self._old is None:
                messages = [*self._state.get(MESSAGES, []), *changed.get(MESSAGES, [])]
                self._state = {**self._state, **changed, **({MESSAGES: messages} if messages else {})}

    def _asked(self, told: Mapping[str, Any]) -> None:
        self._interrupts |= {each["id"]: each for each in told.get(INTERRUPT) or ()}

    def _token(self, chunk: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[Event]:
        text, known = text_in(chunk["content"]), id_of(chunk) in self._streamed
        if chunk["type"] != "AIMessageChunk" or not text or (self._nodes and about.get("langgraph_node") not in self._nodes):
            return
        self._streamed[id_of(chunk)] = self._streamed.get(id_of(chunk), "") + text
        yield ArtifactPiece(Artifact(id_of(chunk), (Part(text=text),)), append=known, last_chunk=False)

    def _end(self) -> Iterator[Event]:
        answers = list(self._answers())
        for message in answers:
            text = text_in(message["content"])
            if text not in self._streamed.values():
                yield ArtifactPiece(Artifact(id_of(message), (Part(text=text),)))
        others = {name: value for name, value in self._state.items() if name != MESSAGES and value is not None}
        if others and others != {name: value for name, value in self._before.items() if name in others}:
            yield ArtifactPiece(Artifact(STATE, (Part(data=others, media_type="application/json"),), name=STATE))
        if self._interrupts:
            yield Ask(prompts=tuple(map(prompt_of, self._interrupts.values())))
        else:
            yield Done(metadata=usage_of(answers))

    def _answers(self) -> Iterable[dict[str, Any]]:
        """What the graph's model says after the person did; not what it says to its tools."""
        messages = self._state.get(MESSAGES, [])
        last = max((place for place, each in enumerate(messages) if each["type"] == "human"), default=-1)
        fresh = (each for each in messages[last + 1 :] if id_of(each) not in (self._old or ()))
        return (each for each in fresh if each["type"] == "ai" and text_in(each["content"]) and not each.get("tool_calls"))


def _failed(said: Mapping[str, Any]) -> Failed:
    return Failed(FAILED, detail=f"{said.get('error')}: {said.get('message')}")


_: type[Vendor] = LangGraph
