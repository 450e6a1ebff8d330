"""Runs that another process of the gateway began: what each vendor's agents can still be asked about, and what comes of it."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from adapters.catalog import VENDORS
from adapters.contract import ArtifactPiece, Ask, Canceled, CannotReattach, Done, Event, Failed, Turn, VendorRef
from adapters.task import Message, Role, Task, TaskState, TaskStatus, text_of
from adapters.upstream.guarded import GuardedAdapter
from adapters.vendors.dify import agent as dify
from adapters.vendors.langchain import langgraph
from adapters.vendors.openai import response_reader
from adapters.vendors.sdk.agent import ReattachableVendor, build_vendor_agent
from tests.adapters.hand_written import SESSION, exchange
from tests.adapters.replay import ReplayEgress, call_of, gathered, vendor_of

RUNNING = Task("ours", "c", TaskStatus(TaskState.WORKING))
GUIDE = Path(__file__).parents[3] / "docs" / "resilience.md"


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (dify, langgraph, response_reader):
        monkeypatch.setattr(module, "REATTACH_POLL_SECONDS", 0.001)


async def joined(kind: str, upstream: dict[str, Any], ref: VendorRef, talk: Iterable[Mapping[str, Any]]) -> list[Event]:
    """The events of a turn that goes on, once everything was asked."""
    egress = ReplayEgress(tuple(talk), {})  # type: ignore[arg-type]  # as of a file
    agent = GuardedAdapter(build_vendor_agent(vendor_of(kind), egress))  # type: ignore[arg-type]  # it does what is needed
    turn = Turn(Message("", Role.USER, ()), ref, stream=True, session=SESSION)
    events = await gathered(agent.reattach(turn, RUNNING, call_of(kind, upstream)))
    assert egress.problems == [] and egress.remaining == []
    return events


def said(events: list[Event]) -> str:
    return " ".join(text_of(event.artifact.parts) for event in events if isinstance(event, ArtifactPiece))


GRAPH, RUN = {"assistant": "echo"}, VendorRef("t 1", "r 1")
ASKED = {"id": "i_1", "value": {"question": "pay 5?"}}


def graph(status: str, values: Any = None, interrupts: Any = None) -> list[dict[str, Any]]:
    run = [exchange("GET", "/threads/t%201/runs/r%201", json={"status": each}) for each in ("pending", "running", status)]
    return [*run, exchange("GET", "/threads/t%201", json={"values": values, "interrupts": interrupts or {}})]


async def test_a_graph_tells_its_state_once_the_run_is_over() -> None:
    values = {
        "messages": [
            {"type": "ai", "id": "m0", "content": "from before"},
            {"type": "human", "id": "m1", "content": "hello"},
            {"type": "ai", "id": "m2", "content": "hi there"},
        ]
    }
    events = await joined("langgraph", GRAPH, RUN, graph("success", values))
    assert said(events) == "hi there" and isinstance(events[-1], Done)


@pytest.mark.parametrize("status", ["interrupted", "success"])  # versions differ
async def test_a_graph_that_asks_meanwhile_asks(status: str) -> None:
    (ask,) = await joined("langgraph", GRAPH, RUN, graph(status, {}, {"task-1": [ASKED]}))
    assert isinstance(ask, Ask) and [prompt.id for prompt in ask.prompts] == ["i_1"]


@pytest.mark.parametrize(("status", "ending"), [("interrupted", Canceled), ("error", Failed), ("timeout", Failed)])
async def test_a_graph_whose_run_was_stopped_or_failed_says_so(status: str, ending: type[Event]) -> None:
    (event,) = await joined("langgraph", GRAPH, RUN, graph(status, {}))
    assert isinstance(event, ending)


async def test_a_thread_that_its_server_forgot_fails_the_turn() -> None:
    (event,) = await joined("langgraph", GRAPH, RUN, [exchange("GET", "/threads/t%201/runs/r%201", status=404, json={"detail": "gone"})])
    assert isinstance(event, Failed)


async def test_a_kickoff_is_asked_how_it_stands() -> None:
    states = [{"status": "running"}, {"status": "completed", "result": {"output": "done"}}]
    talk = [exchange("GET", "/status/k%201", json=state) for state in states]
    events = await joined("crewai", {"text": "topic", "every": 0.02}, VendorRef("", "k 1"), talk)
    assert said(events) == "done" and isinstance(events[-1], Done)


async def test_a_workflow_of_dify_is_asked_how_it_stands() -> None:
    path, ref = "/workflows/run/w%201", VendorRef("", "t1", {"run": "w 1"})
    states = [{"status": "running"}, {"status": "succeeded", "outputs": {"text": "done"}}]
    events = await joined("dify", {"mode": "workflow"}, ref, [exchange("GET", path, json=state) for state in states])
    assert said(events) == "done" and isinstance(events[-1], Done)


async def test_a_form_that_a_lost_turn_came_to_can_not_be_shown_any_more() -> None:
    ref = VendorRef("", "t1", {"run": "w 1"})
    with pytest.raises(CannotReattach):
        await joined("dify", {"mode": "workflow"}, ref, [exchange("GET", "/workflows/run/w%201", json={"status": "paused"})])


async def test_a_response_in_the_background_is_asked_how_it_stands() -> None:
    item = {"type": "message", "id": "i1", "role": "assistant", "content": [{"type": "output_text", "text": "done", "annotations": []}]}
    states: list[dict[str, Any]] = [{"status": "queued"}, {"status": "in_progress"}, {"status": "completed", "output": [item]}]
    talk = [exchange("GET", "/responses/resp_1", json={"id": "resp_1", **state}) for state in states]
    events = await joined("openai-responses", {"model": "m", "background": True}, VendorRef("", "resp_1"), talk)
    assert said(events) == "done" and isinstance(events[-1], Done)


async def test_a_response_of_foundry_is_asked_for_at_its_own_address() -> None:
    item = {"type": "message", "id": "i1", "role": "assistant", "content": [{"type": "output_text", "text": "done", "annotations": []}]}
    talk = [exchange("GET", "/openai/v1/responses/resp_1", json={"id": "resp_1", "status": "completed", "output": [item]})]
    events = await joined("foundry", {"agent": "a", "background": True}, VendorRef("", "resp_1"), talk)
    assert said(events) == "done" and isinstance(events[-1], Done)


async def test_a_bot_tells_again_what_it_said_since_the_turn_began() -> None:
    """What it said to the turn before, and what the person said, is no part of that."""
    said_before, mine = {"replyToId": "a-0", "text": "old"}, {"text": "hello", "from": {"role": "user"}}
    said_since = {"replyToId": "a-1", "text": "done", "inputHint": "acceptingInput"}
    activities = [{"type": "message", "from": {"id": "bot"}, **each} for each in (said_before, mine, said_since)]
    place = "/v3/directline/conversations/c1/activities?watermark="
    told = [exchange("GET", f"{place}3", json={"activities": activities, "watermark": "6"})]
    quiet = [exchange("GET", f"{place}6", json={"activities": [], "watermark": "6"})]
    events = await joined("direct-line", {"every": 0.01, "quiet": 1}, VendorRef("c1", "a-1", kept={"watermark": "3"}), told + quiet)
    assert said(events) == "done" and isinstance(events[-1], Done)


POLLED = {
    "about": {"name": "n", "description": "d"},
    "start": {"path": "/begin", "body": {"text": "{text}"}},
    "answer": {"output": "/out", "status": "/state", "run": "/job", "states": {"done": ["ok"], "working": ["busy"]}},
    "poll": {"path": "/jobs/{run}", "every": 0.02},
}


async def test_an_agent_of_plain_http_is_asked_as_its_operator_describes_it() -> None:
    talk = [exchange("GET", "/jobs/j1", json=state) for state in ({"state": "busy"}, {"state": "ok", "out": "done"})]
    events = await joined("rest", POLLED, VendorRef(SESSION, "j1"), talk)
    assert said(events) == "done" and isinstance(events[-1], Done)


CANNOT: list[tuple[str, dict[str, Any], VendorRef]] = [
    ("langgraph", GRAPH, VendorRef("t 1")),
    ("dify", {"mode": "chat"}, VendorRef("c", "t1")),
    ("openai-responses", {"model": "m"}, VendorRef("", "resp_1")),
    ("openai-responses", {"model": "m", "dialect": "devui"}, VendorRef("c", "resp_1")),
    ("rest", {name: value for name, value in POLLED.items() if name != "poll"}, VendorRef(SESSION, "j1")),
    ("bedrock", {"agent": "A", "alias": "B", "region": "eu-central-1"}, VendorRef("s", "t")),
]


@pytest.mark.parametrize(("kind", "upstream", "ref"), CANNOT)
async def test_who_can_not_be_asked_about_a_run_is_not(kind: str, upstream: dict[str, Any], ref: VendorRef) -> None:
    with pytest.raises(CannotReattach):
        await joined(kind, upstream, ref, [])


def test_the_guide_names_each_kind_that_goes_on_and_each_that_does_not() -> None:
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (continues|is told to stop|is lost)\b", GUIDE.read_text(), re.MULTILINE))
    assert set(rows) == {"a2a", *VENDORS}
    for kind in VENDORS:
        vendor = vendor_of(kind)
        expected = "continues" if isinstance(vendor, ReattachableVendor) else "is told to stop" if vendor.features.cancels else "is lost"
        assert rows[kind] == expected, kind
