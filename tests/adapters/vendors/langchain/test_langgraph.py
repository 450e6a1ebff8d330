"""Claims about runs of a graph: how one ended is what the server says of the run, whoever had it canceled."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from adapters.contract import ArtifactPiece, Canceled, Done, Event, Failed, RefLearned, VendorRef
from adapters.task import Part
from adapters.upstream.egress import Egress
from adapters.upstream.guarded import GuardedAdapter
from adapters.vendors.langchain.langgraph import LangGraph
from adapters.vendors.langchain.messages import run_input
from adapters.vendors.langchain.reader import GraphReader
from adapters.vendors.sdk.agent import build_vendor_agent, parse_events
from adapters.vendors.sdk.frames import End, JsonBody
from tests.adapters.replay import call_of, gathered
from tests.fakes.a2a_agents import serving
from tests.fakes.a2a_calls import said, turn
from tests.fakes.graph_server import GraphServer


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    made = Egress(["127.0.0.1"])
    yield made
    await made.close()


def process(egress: Egress) -> GuardedAdapter:
    """What one process of the gateway has: it knows of no cancellation but its own."""
    return GuardedAdapter(build_vendor_agent(LangGraph(), egress))


async def test_a_run_that_another_process_canceled_is_canceled_and_not_completed(egress: Egress) -> None:
    graph, events = GraphServer(), list[Event]()
    async with serving(graph) as url, asyncio.timeout(60):
        call = call_of("langgraph", {"assistant": "echo"}, url)
        async for event in process(egress).run(turn("slow please"), call):
            events.append(event)
            if isinstance(event, RefLearned) and event.ref.task_id:
                assert await process(egress).cancel(event.ref, call)
    assert events[-1] == Canceled()


@pytest.mark.parametrize(
    ("status", "ending"),
    [
        ("success", Done),
        ("running", Done),  # it is about to end, as its stream has
        ("interrupted", Canceled),
        ("error", Failed),
        ("timeout", Failed),
        ("404", Done),
        ("500", Done),  # who can't be asked has said that it is done
    ],
)
async def test_a_turn_ends_as_the_run_did(egress: Egress, status: str, ending: type[Event]) -> None:
    graph = GraphServer()
    graph.status = status
    async with serving(graph) as url:
        events = await gathered(process(egress).run(turn("hello"), call_of("langgraph", {"assistant": "echo"}, url)))
    assert isinstance(events[-1], ending)
    assert said(events[:-1]) == "echo: hello"


async def test_a_thread_that_is_gone_fails_with_its_reason_and_is_given_up(egress: Egress) -> None:
    async with serving(GraphServer()) as url:
        call = call_of("langgraph", {"assistant": "echo"}, url)
        events = await gathered(process(egress).run(turn("hello", VendorRef("thread-9")), call))
    assert isinstance(events[-1], Failed) and events[-1].kind == "SESSION_LOST"
    assert events[-2] == RefLearned(VendorRef("thread-9", over=True))


async def test_a_server_that_does_not_know_its_graph_either_has_lost_no_thread(egress: Egress) -> None:
    async with serving(GraphServer()) as url:
        call = call_of("langgraph", {"assistant": "another"}, url)
        events = await gathered(process(egress).run(turn("hello", VendorRef("thread-9")), call))
    assert isinstance(events[-1], Failed) and events[-1].kind == "UPSTREAM"


async def test_a_run_whose_time_is_over_is_stopped(egress: Egress) -> None:
    graph = GraphServer()
    async with serving(graph) as url, asyncio.timeout(60):
        events = await gathered(process(egress).run(turn("slow please"), call_of("langgraph", {"assistant": "echo"}, url, seconds=1)))
    assert isinstance(events[-1], Failed) and events[-1].kind == "AGENT_LATE"
    assert graph.canceled.is_set()


@pytest.mark.parametrize(
    ("block", "part"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, Part(raw="AAAA", media_type="image/png")),
        ({"type": "image", "source_type": "base64", "data": "AAAA", "mime_type": "image/png"}, Part(raw="AAAA", media_type="image/png")),
        ({"type": "image", "base64": "AAAA", "mime_type": "image/png"}, Part(raw="AAAA", media_type="image/png")),
        ({"type": "image", "source": {"data": "AAAA", "media_type": "image/png"}}, Part(raw="AAAA", media_type="image/png")),
        ({"type": "image", "url": "https://pictures.example/1.png"}, Part(url="https://pictures.example/1.png")),
    ],
)
def test_an_image_of_an_answer_is_a_part_of_it(block: dict[str, Any], part: Part) -> None:
    answer = {"type": "ai", "id": "m-1", "content": [{"type": "text", "text": "Here"}, block]}
    events = list(parse_events(GraphReader("thread-1"), [JsonBody({"messages": [answer]}), End(True)]))
    assert [event.artifact.parts for event in events if isinstance(event, ArtifactPiece)] == [(Part(text="Here"), part)]


def test_a_graph_without_messages_takes_text_in_the_configured_member() -> None:
    assert run_input(turn("hello"), "question") == {"input": {"question": "hello"}}
