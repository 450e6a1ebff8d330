"""Claims about runs of a graph: how one ended is what the server says of the run, whoever had it canceled."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from adapters.contract import Canceled, Done, Event, Failed, Ref
from adapters.egress import Egress
from adapters.guarded import Guarded
from adapters.langgraph import LangGraph
from adapters.vendor import agent_of
from tests.adapters.replay import call_of, gathered
from tests.fakes.a2a_agents import serving
from tests.fakes.a2a_calls import said, turn
from tests.fakes.graph_server import GraphServer


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    made = Egress(["127.0.0.1"])
    yield made
    await made.close()


def process(egress: Egress) -> Guarded:
    """What one process of the gateway has: it knows of no cancellation but its own."""
    return Guarded(agent_of(LangGraph(), egress))


async def test_a_run_that_another_process_canceled_is_canceled_and_not_completed(egress: Egress) -> None:
    graph, events = GraphServer(), list[Event]()
    async with serving(graph) as url, asyncio.timeout(60):
        call = call_of("langgraph", {"assistant": "echo"}, url)
        async for event in process(egress).run(turn("slow please"), call):
            events.append(event)
            if isinstance(event, Ref) and event.ref.task_id:
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
