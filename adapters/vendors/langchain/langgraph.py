"""LangGraph Agent Server: runs of a graph on a thread; interrupts become prompts, whose answers are the next run's command."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import ClassVar, Final

from adapters.contract import Canceled, Done, Event, Failed, RefLearned, Turn, UpstreamFault, VendorRef
from adapters.vendors.langchain.messages import run_input
from adapters.vendors.langchain.reader import INTERRUPT_KEY, GraphReader
from adapters.vendors.sdk.agent import (
    NO_OUTCOME_TEXT,
    AgentFacts,
    CancelOutcome,
    Features,
    OpenQuestions,
    Vendor,
    VendorOptions,
    parse_events,
    read_events,
)
from adapters.vendors.sdk.connection import Request, VendorConnection, quote_segment
from adapters.vendors.sdk.faults import AGENT_FAILED_TEXT
from adapters.vendors.sdk.frames import End, JsonBody

STATUS_SECONDS: Final = 5.0  # the timeout for reading how a run ended
REATTACH_POLL_SECONDS: Final = 1.0  # between two polls of a run that another process began
END_NODE: Final = "__end__"


class LangGraphOptions(VendorOptions):
    """Options. `assistant`: a graph's name, or an assistant's id. `nodes`: those whose tokens are the answer; by default all.

    `text`: the state member for a message's text, in a graph whose state has no `messages`.
    """

    assistant: str
    text: str = ""
    nodes: tuple[str, ...] = ()


class LangGraph:
    """The LangGraph vendor: a thread is a conversation, a run is a turn."""

    kind: ClassVar[str] = "langgraph"
    features: ClassVar[Features] = Features(
        streams=True, cancels=True, resumes=True, files=True, questions=OpenQuestions.ONE, keeps_sessions=True
    )
    options: ClassVar[type[VendorOptions]] = LangGraphOptions

    async def describe(self, connection: VendorConnection[LangGraphOptions]) -> AgentFacts:
        wanted = connection.options.assistant
        found = await connection.request_json(Request("POST", "/assistants/search", {"graph_id": wanted}))
        found = found or [await connection.request_json(Request("GET", f"/assistants/{quote_segment(wanted)}"))]
        name = str(found[0]["name"] or wanted)
        return AgentFacts(name, str(found[0].get("description") or f"The LangGraph assistant {name}."))

    async def run(self, turn: Turn, connection: VendorConnection[LangGraphOptions]) -> AsyncIterator[Event]:
        thread = (turn.ref.context_id if turn.ref else "") or str(
            (await connection.request_json(Request("POST", "/threads", {})))["thread_id"]
        )
        yield RefLearned(VendorRef(thread))
        modes = ["updates", "messages-tuple", "values"] if turn.stream else ["updates", "values"]
        body = {
            "assistant_id": connection.options.assistant,
            **run_input(turn, connection.options.text),
            "stream_mode": modes,
            "multitask_strategy": "reject",
        }
        frames, ref = connection.stream_frames(Request("POST", f"/threads/{quote_segment(thread)}/runs/stream", body)), VendorRef()
        async with aclosing(read_events(GraphReader(thread, connection.options.nodes), frames)) as events:
            async for event in events:
                ref = event.ref if isinstance(event, RefLearned) else ref
                yield await _confirmed_ending(event, ref, connection) if _is_bare_ending(event) and ref.task_id else event

    async def reattach(self, ref: VendorRef, connection: VendorConnection[LangGraphOptions]) -> AsyncIterator[Event]:
        """Polls the run until it ends. Its result is the state of its thread, which has one run at a time."""
        async with aclosing(connection.poll_json(Request("GET", _run_path(ref)), REATTACH_POLL_SECONDS)) as runs:
            async for run in runs:
                if run["status"] not in ("pending", "running"):
                    break
        thread = await connection.request_json(Request("GET", f"/threads/{quote_segment(ref.context_id)}"))
        interrupts = [each for found in (thread.get("interrupts") or {}).values() for each in found]
        if run["status"] == "interrupted" and not interrupts:
            yield Canceled()
        elif run["status"] in ("error", "timeout"):
            yield Failed(AGENT_FAILED_TEXT, detail=f"the run ended as {run['status']}")
        else:
            state = {**(thread.get("values") or {}), INTERRUPT_KEY: interrupts}
            for event in parse_events(GraphReader(ref.context_id, connection.options.nodes), (JsonBody(state), End(True))):
                yield event

    async def cancel(self, ref: VendorRef, connection: VendorConnection[LangGraphOptions]) -> CancelOutcome:
        """Cancels a run. For a task that waits, the run has ended, and its interrupt is dropped instead."""
        if ref.prompts:
            return await _drop_interrupts(ref, connection)
        run = _run_path(ref)
        status = (await connection.request_json(Request("GET", run)))["status"]
        if status not in ("pending", "running"):
            return CancelOutcome.UNSUPPORTED if status == "interrupted" else CancelOutcome.TOO_LATE
        await connection.request(Request("POST", f"{run}/cancel?wait=true", accepted_statuses=(404, 409)))
        after = (await connection.request_json(Request("GET", run)))["status"]
        unknown = CancelOutcome.UNKNOWN
        return {"interrupted": CancelOutcome.CANCELED, "pending": unknown, "running": unknown}.get(after, CancelOutcome.TOO_LATE)


async def _drop_interrupts(ref: VendorRef, connection: VendorConnection[LangGraphOptions]) -> CancelOutcome:
    """Drops a thread's interrupts if they include the task's own question: sets the graph's state to its end."""
    thread = await connection.request(Request("GET", f"/threads/{quote_segment(ref.context_id)}", accepted_statuses=(404,)))
    interrupt_ids = (
        {each["id"] for found in (thread.value.get("interrupts") or {}).values() for each in found} if thread.status == 200 else set()
    )
    if not interrupt_ids & {prompt.id for prompt in ref.prompts or ()}:
        return CancelOutcome.TOO_LATE
    await connection.request(Request("POST", f"/threads/{quote_segment(ref.context_id)}/state", {"values": None, "as_node": END_NODE}))
    return CancelOutcome.CANCELED


def _run_path(run: VendorRef) -> str:
    return f"/threads/{quote_segment(run.context_id)}/runs/{quote_segment(run.task_id)}"


def _is_bare_ending(event: Event) -> bool:
    """Whether an ending may hide a cancellation: the stream of a canceled run ends as if it were complete, or without an outcome."""
    return isinstance(event, Done) or (isinstance(event, Failed) and event.reason == NO_OUTCOME_TEXT)


async def _confirmed_ending(ending: Event, run: VendorRef, connection: VendorConnection[LangGraphOptions]) -> Event:
    """The ending by the run's status, which is known when its stream ends; the given one where the status can't be read."""
    try:
        async with asyncio.timeout(STATUS_SECONDS):
            status = (await connection.request_json(Request("GET", _run_path(run))))["status"]
    except (UpstreamFault, TimeoutError):
        return ending
    if status == "interrupted":
        return Canceled()
    return Failed(AGENT_FAILED_TEXT, detail=f"the run ended as {status}") if status in ("error", "timeout") else ending


_: type[Vendor] = LangGraph
