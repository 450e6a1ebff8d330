"""LangGraph Agent Server: a graph's runs on a thread, its interrupts as prompts, their answers as the command of the next run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import ClassVar, Final

from adapters.contract import Canceled, Done, Event, Failed, Ref, Turn, UpstreamFault, VendorRef
from adapters.vendors.langchain.messages import input_of
from adapters.vendors.langchain.reader import INTERRUPT, GraphReader
from adapters.vendors.sdk.agent import UNFINISHED, AgentFacts, CancelOutcome, Features, OpenQuestions, Vendor, VendorOptions, parse, read
from adapters.vendors.sdk.connection import Line, Request, quoted
from adapters.vendors.sdk.faults import FAILED
from adapters.vendors.sdk.frames import End, JsonBody

LOOK_SECONDS: Final = 5.0  # that a run may take to say how it ended
JOIN_SECONDS: Final = 1.0  # between two questions how a run stands that another process began
END_NODE: Final = "__end__"


class LangGraphOptions(VendorOptions):
    """`assistant`: a graph's name, or an assistant's id. `nodes`: those whose tokens are the answer; none named: all.

    `text`: the member of the state that a text becomes, in a graph whose state has no `messages`.
    """

    assistant: str
    text: str = ""
    nodes: tuple[str, ...] = ()


class LangGraph:
    """A thread is a conversation, a run is a turn."""

    kind: ClassVar[str] = "langgraph"
    features: ClassVar[Features] = Features(
        streams=True, cancels=True, resumes=True, files=True, questions=OpenQuestions.ONE, keeps_sessions=True
    )
    options: ClassVar[type[VendorOptions]] = LangGraphOptions

    async def describe(self, line: Line[LangGraphOptions]) -> AgentFacts:
        wanted = line.options.assistant
        found = await line.json(Request("POST", "/assistants/search", {"graph_id": wanted}))
        found = found or [await line.json(Request("GET", f"/assistants/{quoted(wanted)}"))]
        name = str(found[0]["name"] or wanted)
        return AgentFacts(name, str(found[0].get("description") or f"The LangGraph assistant {name}."))

    async def run(self, turn: Turn, line: Line[LangGraphOptions]) -> AsyncIterator[Event]:
        thread = (turn.ref.context_id if turn.ref else "") or str((await line.json(Request("POST", "/threads", {})))["thread_id"])
        yield Ref(VendorRef(thread))
        modes = ["updates", "messages-tuple", "values"] if turn.stream else ["updates", "values"]
        body = {
            "assistant_id": line.options.assistant,
            **input_of(turn, line.options.text),
            "stream_mode": modes,
            "multitask_strategy": "reject",
        }
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
        """Stops a run. Of a task that waits, the run is over, and what is dropped is the interrupt."""
        if ref.prompts:
            return await _dropped(ref, line)
        run = _place(ref)
        before = (await line.json(Request("GET", run)))["status"]
        if before not in ("pending", "running"):
            return CancelOutcome.UNSUPPORTED if before == "interrupted" else CancelOutcome.TOO_LATE
        await line.ask(Request("POST", f"{run}/cancel?wait=true", also=(404, 409)))
        after = (await line.json(Request("GET", run)))["status"]
        unknown = CancelOutcome.UNKNOWN
        return {"interrupted": CancelOutcome.CANCELED, "pending": unknown, "running": unknown}.get(after, CancelOutcome.TOO_LATE)


async def _dropped(ref: VendorRef, line: Line[LangGraphOptions]) -> CancelOutcome:
    """Ends what a thread waits for, as long as that is the task's own question: the graph goes on from its end."""
    thread = await line.ask(Request("GET", f"/threads/{quoted(ref.context_id)}", also=(404,)))
    asked = {each["id"] for found in (thread.value.get("interrupts") or {}).values() for each in found} if thread.status == 200 else set()
    if not asked & {prompt.id for prompt in ref.prompts or ()}:
        return CancelOutcome.TOO_LATE
    await line.ask(Request("POST", f"/threads/{quoted(ref.context_id)}/state", {"values": None, "as_node": END_NODE}))
    return CancelOutcome.CANCELED


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


_: type[Vendor] = LangGraph
