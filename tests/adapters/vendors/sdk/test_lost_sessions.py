"""A session that its agent lost: the turn goes on in a new one where nothing is lost, and otherwise says that the conversation is gone."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from adapters.contract import Answer, AnswerRefused, Call, Done, Event, Failed, Prompt, RefLearned, VendorRef
from adapters.upstream.egress import Egress
from adapters.upstream.guarded import GuardedAdapter
from adapters.vendors.langchain.langgraph import LangGraph
from adapters.vendors.sdk.agent import build_vendor_agent
from tests.adapters.hand_written import asked, exchange
from tests.adapters.replay import call_of, gathered
from tests.fakes.a2a_agents import serving
from tests.fakes.a2a_calls import said, turn
from tests.fakes.graph_server import GraphServer

UNUSED = VendorRef("thread-9", is_unused=True)


@pytest.fixture
async def graph() -> GraphServer:
    return GraphServer()


@pytest.fixture
async def call(graph: GraphServer) -> AsyncIterator[Call]:
    async with serving(graph) as url:
        yield call_of("langgraph", {"assistant": "echo"}, url)


@pytest.fixture
async def agent() -> AsyncIterator[GuardedAdapter]:
    egress = Egress(["127.0.0.1"])
    yield GuardedAdapter(build_vendor_agent(LangGraph(), egress))
    await egress.close()


def refs(events: list[Event]) -> list[VendorRef]:
    return [event.ref for event in events if isinstance(event, RefLearned)]


async def test_a_turn_goes_on_in_a_new_session_where_nothing_is_lost(agent: GuardedAdapter, call: Call, graph: GraphServer) -> None:
    events = await gathered(agent.run(turn("hello", UNUSED), call))
    assert (said(events[:-1]), type(events[-1])) == ("echo: hello", Done)
    assert [thread for thread, _ in graph.bodies] == ["thread-1"]
    assert refs(events)[-1] == VendorRef("thread-1", "run-1")


async def test_a_lost_question_is_never_replaced(agent: GuardedAdapter, call: Call, graph: GraphServer) -> None:
    answering = replace(turn("yes", replace(UNUSED, task_id="run-1")), answers=(Answer(Prompt("i-1"), "yes"),))
    events = await gathered(agent.run(answering, call))
    assert isinstance(events[-1], Failed) and events[-1].kind == "SESSION_LOST"
    assert (refs(events)[-1].over, graph.threads) == (True, 0)


async def test_a_message_that_was_refused_leaves_its_session_unused(agent: GuardedAdapter, call: Call, graph: GraphServer) -> None:
    graph.busy = 429
    opened = refs(await gathered(agent.run(turn("hello"), call)))[-1]
    assert opened == VendorRef("thread-1", is_unused=True)
    again = refs(await gathered(agent.run(turn("hello", opened), call)))[-1]
    assert again == opened
    graph.busy = 0
    graph.forget()
    events = await gathered(agent.run(turn("hello", again), call))
    assert said(events[:-1]) == "echo: hello" and refs(events)[-1] == VendorRef("thread-2", "run-1")


async def test_a_refused_message_does_not_make_a_used_session_unused(agent: GuardedAdapter, call: Call, graph: GraphServer) -> None:
    used = refs(await gathered(agent.run(turn("hello"), call)))[-1]
    graph.busy = 429
    assert not any(ref.is_unused for ref in refs(await gathered(agent.run(turn("hello", VendorRef(used.context_id)), call))))


async def test_a_message_that_the_agent_took_has_used_its_session() -> None:
    conversations = "/v3/directline/conversations"
    talk = [
        exchange("POST", conversations, json={"conversationId": "c-1"}),
        exchange("POST", f"{conversations}/c-1/activities", json={"id": "a-1"}),
        exchange("GET", f"{conversations}/c-1/activities", status=401, json={}),
    ]
    events = await asked("direct-line", {"every": 0.01}, talk, stream=False)
    assert isinstance(events[-1], Failed) and refs(events)[-1].task_id == "a-1"
    assert not any(ref.is_unused for ref in refs(events))


async def test_a_lost_session_is_replaced_once(agent: GuardedAdapter, call: Call, graph: GraphServer) -> None:
    graph.busy = 404
    events = await gathered(agent.run(turn("hello", UNUSED), call))
    assert isinstance(events[-1], Failed) and events[-1].kind == "UPSTREAM"
    assert (graph.threads, refs(events)[-1]) == (1, VendorRef("thread-1", is_unused=True))


async def test_turns_of_one_process_know_that_the_session_is_unused(call: Call, graph: GraphServer) -> None:
    egress = Egress(["127.0.0.1"])
    vendor_agent = build_vendor_agent(LangGraph(), egress)
    first = replace(turn("hello"), session="conversation")
    graph.busy = 429
    events = GuardedAdapter(vendor_agent).run(first, call)
    while not isinstance(await anext(events), Failed):
        pass
    (gate,) = vendor_agent._session_locks.values()
    await events.aclose()  # type: ignore[attr-defined]  # every run is an async generator
    graph.busy = 0
    graph.forget()
    assert gate.previous_ref == VendorRef("thread-1", is_unused=True)  # what a turn that waited here goes on with
    found = await gathered(vendor_agent.run(first, call))
    await egress.close()
    assert isinstance(found[-1], Done) and refs(found)[-1].context_id == "thread-2"


MISSING: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "anthropic-agents": (
        {"agent": "a", "environment": "e"},
        [exchange("GET", "/v1/sessions/s-1/events/stream", status=404, json={}), exchange("GET", "/v1/agents/a", json={"name": "a"})],
    ),
    "dify": ({}, [exchange("POST", "/chat-messages", status=404, json={}), exchange("GET", "/info", json={"name": "d"})]),
    "openai-agents": (
        {"agent": "a"},
        [exchange("GET", "/agents/sessions/s-1/events", status=404, json={}), exchange("GET", "/agents/a", json={"id": "a"})],
    ),
}


@pytest.mark.parametrize("kind", MISSING)
async def test_an_unknown_session_is_lost_where_the_agent_is_known(kind: str) -> None:
    upstream, talk = MISSING[kind]
    events = await asked(kind, upstream, talk, ref=VendorRef("s-1"), stream=False)
    assert isinstance(events[-1], Failed) and (events[-1].kind, events[-1].retryable) == ("SESSION_LOST", False)
    assert refs(events)[-1].over


@pytest.mark.parametrize(
    ("problem", "ending", "over"),
    [
        ("Failed to send HIL responses: Response provided for unknown request ID: r-1", Failed, True),
        ("Cannot send responses without a checkpoint", Failed, True),
        ("Response type mismatch for request r-1", AnswerRefused, False),
    ],
)
async def test_devui_says_that_it_lost_a_question(problem: str, ending: type[Event], over: bool) -> None:
    error = {"type": "error", "code": None, "message": problem}
    failed = {"type": "response.failed", "response": {"id": "resp_2", "status": "failed", "error": {"code": "server_error"}, "output": []}}
    talk = [exchange("POST", "/responses", {"conversation": "conv_1"}, sse=[error, failed])]
    answers = (Answer(Prompt("r-1", schema={"type": "string"}), "yes"),)
    events = await asked(
        "openai-responses", {"model": "flow", "dialect": "devui"}, talk, ref=VendorRef("conv_1", "resp_1"), answers=answers
    )
    assert isinstance(events[-1], ending)
    assert not isinstance(events[-1], Failed) or events[-1].kind == "SESSION_LOST"
    assert any(ref.over for ref in refs(events)) == over


LOST_RESPONSE = {"type": "invalid_request_error", "code": "previous_response_not_found", "message": "Previous response 'resp_1' not found."}
RESPONSES_OF = {"openai-responses": ({"model": "gpt-5"}, "/responses"), "foundry": ({"agent": "sales"}, "/openai/v1/responses")}


@pytest.mark.parametrize("told", [{"status": 400, "json": {"error": LOST_RESPONSE}}, {"sse": [LOST_RESPONSE | {"type": "error"}]}])
@pytest.mark.parametrize("kind", RESPONSES_OF)
async def test_an_expired_response_is_a_lost_conversation(kind: str, told: dict[str, Any]) -> None:
    upstream, path = RESPONSES_OF[kind]
    events = await asked(kind, upstream, [exchange("POST", path, **told)], ref=VendorRef("resp_1"), stream="sse" in told)
    assert isinstance(events[-1], Failed) and (events[-1].kind, events[-1].retryable) == ("SESSION_LOST", False)
    assert refs(events)[-1].over
