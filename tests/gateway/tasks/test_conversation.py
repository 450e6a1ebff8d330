"""Claims about conversations: an answer decides its own question alone, and nothing else is said while a session holds one question."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from adapters.catalog import VENDORS, AdapterCatalog
from adapters.contract import Ask, ConsentNeeded, Prompt, RefLearned, VendorRef
from adapters.task import TaskState
from adapters.upstream.egress import Egress
from adapters.upstream.pending_consent import agent_ref, consent_question, pending_ref
from adapters.vendors.sdk.agent import OpenQuestions
from gateway.calls.agent_requests import AgentRequest, build_turn
from gateway.tasks.contracts.prompts import BadPromptAnswer, find_answers
from gateway.tasks.conversation import ConversationWaits, OtherTasks, check_no_open_question, check_question_is_current, ref_to_continue
from gateway.tasks.log import TaskRow
from gateway.tasks.reader import session_id_of
from gateway.telemetry.spans import TraceContext
from registry.cards.card import FEATURES, Registration
from tests.adapters.replay import expectations, vendor_of
from tests.fakes.a2a_agents import serving
from tests.fakes.a2a_calls import call_to, turn
from tests.fakes.graph_server import GraphServer
from tests.fakes.house import CallbackAgent, House, two
from tests.fakes.reception import Reception
from tests.fakes.thread_agent import ThreadAgent
from tests.fakes.waiting import until
from tests.house.source import ROOT

sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ONE = {"resumes": True, "questions": OpenQuestions.ONE}


@pytest.fixture
async def graph() -> GraphServer:
    return GraphServer()


@pytest.fixture
async def desk(home: House, graph: GraphServer) -> AsyncIterator[Reception]:
    """With the graph registered as `sales`."""
    async with serving(graph) as url:
        yield await registered(home, url)


async def registered(home: House, url: str) -> Reception:
    desk = Reception(home)
    answer = await desk.post("/api/agents", url=url, kind="langgraph", name="sales", upstream={"assistant": "echo"})
    assert answer.status_code == 201, answer.text
    return desk


async def says(home: House, text: str, user: str = "alice", agent: str = "sales", **more: Any) -> Any:
    answer = await home.send(home.token(user), agent, text, **more)
    return answer["result"]["task"] if "result" in answer else answer["error"]


def state(task: Any) -> str:
    return str(task["status"]["state"]).removeprefix("TASK_STATE_")


def words(task: Any) -> str:
    return " ".join(part.get("text", "") for part in task["status"]["message"]["parts"])


@sqlite
async def test_a_new_task_is_kept_out_of_a_conversation_that_waits(desk: Reception, graph: GraphServer) -> None:  # attack HIT-01
    first = await says(desk.home, "pay 5")
    second = await says(desk.home, "pay 1000000", contextId=first["contextId"])
    assert second["code"] == -32014 and first["id"] in second["message"]
    (info,) = [each for each in second["data"] if each.get("reason")]
    assert (info["reason"], info["metadata"]["taskId"]) == ("CONVERSATION_WAITS", first["id"])
    assert state(await says(desk.home, "yes", taskId=first["id"])) == "COMPLETED"
    assert graph.decided == [("Pay 5?", "yes")]
    assert state(await says(desk.home, "pay 1000000", contextId=first["contextId"])) == "INPUT_REQUIRED"


@sqlite
async def test_an_answer_to_a_graph_names_its_interrupt(desk: Reception, graph: GraphServer) -> None:  # attack HIT-01
    first = await says(desk.home, "pay 5")
    thread = graph.bodies[0][0]
    graph.open[thread] = [{"id": "i-9", "value": {"question": "Pay 1000000?"}, "response_schema": None}]  # by another hand
    again = await says(desk.home, "yes", taskId=first["id"])
    assert graph.bodies[-1][1]["command"] == {"resume": {"i-1": "yes"}}
    assert state(again) == "INPUT_REQUIRED" and graph.decided == []


@sqlite
async def test_other_conversations_and_people_are_not_kept_out(desk: Reception) -> None:
    first = await says(desk.home, "pay 5")
    for user, more in (("alice", {}), ("bob", {"contextId": first["contextId"]}), ("alice", {"contextId": "c-2"})):
        assert state(await says(desk.home, "pay 7", user=user, **more)) == "INPUT_REQUIRED"


@sqlite
async def test_of_two_sends_at_once_the_second_is_rejected_when_the_first_asks(
    desk: Reception, graph: GraphServer
) -> None:  # attack HIT-01
    first = asyncio.create_task(says(desk.home, "pay wait 5", contextId="c-1"))
    await graph.working.wait()
    second = asyncio.create_task(says(desk.home, "pay 1000000", contextId="c-1"))
    await until(lambda: len(desk.home.gateway.calls.parts.in_flight.turn_grants) == 2)
    graph.go_on.set()
    asked, rejected = await first, await second
    assert (state(asked), state(rejected)) == ("INPUT_REQUIRED", "REJECTED")
    assert asked["id"] in words(rejected)
    assert rejected["status"]["message"]["metadata"]["urn:interlock:a2a:error"] == {"reason": "CONVERSATION_WAITS"}
    assert len(graph.bodies) == 1
    assert state(await says(desk.home, "yes", taskId=asked["id"])) == "COMPLETED" and graph.decided == [("Pay 5?", "yes")]


async def test_another_process_keeps_a_new_task_out_too(graph: GraphServer, tmp_path: Path, postgres_url: str) -> None:  # attack HIT-01
    async with serving(graph) as url, two(tmp_path / "home", postgres_url) as (here, there), asyncio.timeout(60):
        await registered(here, url)
        await there.gateway.database.refresh_epochs()
        first = asyncio.create_task(says(here, "pay wait 5", contextId="c-1"))
        await graph.working.wait()
        second = asyncio.create_task(says(there, "pay 1000000", contextId="c-1"))
        await until(lambda: len(there.gateway.calls.parts.in_flight.turn_grants) == 1)
        graph.go_on.set()
        asked, rejected = await first, await second
        assert (state(asked), state(rejected)) == ("INPUT_REQUIRED", "REJECTED") and asked["id"] in words(rejected)
        refused = await says(there, "pay 1000000", contextId="c-1")
        assert refused["code"] == -32014 and asked["id"] in refused["message"]
        assert state(await says(there, "yes", taskId=asked["id"])) == "COMPLETED"
        assert state(await says(there, "pay 7", contextId="c-1")) == "INPUT_REQUIRED"
    assert graph.decided == [("Pay 5?", "yes")]


@sqlite
async def test_an_a2a_agent_that_resumes_its_context_is_asked_one_thing_at_a_time(home: House) -> None:  # attack HIT-01
    agent = ThreadAgent()
    async with serving(agent) as url:
        await home.registered("payer", url)
        first = await says(home, "pay 5", agent="payer")
        second = await says(home, "pay 1000000", agent="payer", contextId=first["contextId"])
        assert second["code"] == -32014 and first["id"] in second["message"]
        assert state(await says(home, "yes", agent="payer", taskId=first["id"])) == "COMPLETED"
        assert state(await says(home, "hello", agent="payer", contextId=first["contextId"])) == "COMPLETED"
    assert agent.paid == ["pay 5 yes"]


def row(name: str, ref: VendorRef, state: TaskState = TaskState.INPUT_REQUIRED, updated: int = 1) -> TaskRow:
    text = msgspec.json.encode(ref).decode()
    ids = {"tenant": "default", "owner": "o", "context_id": "c", "agent": "sales", "parent_id": "", "txn": "", "decision_id": ""}
    return TaskRow(id=name, state=state, updated=updated, vendor_ref=text, grant_id="", created=0, **ids)


def entry(features: Any = None, **upstream: Any) -> Registration:
    """An agent of a vendor with those features, or one of A2A."""
    blank = dict.fromkeys(Registration.__slots__, "")
    facts = {} if features is None else {FEATURES: features}
    return Registration(**{**blank, "tenant": "default", "name": "sales", "facts": facts, "upstream": upstream, "contracts": {}})  # type: ignore[arg-type]  # the rest is not looked at


ASKS = VendorRef("s", "r", prompts=(Prompt("i-1"),))


@pytest.mark.parametrize("kind", sorted(VENDORS))
def test_every_adapter_says_whether_its_sessions_hold_one_question(kind: str) -> None:  # attack HIT-01
    features = vendor_of(kind).features
    assert features.resumes == (features.questions is not OpenQuestions.NONE)
    assert not features.parallel or features.questions is OpenQuestions.EACH
    beside, target = OtherTasks((row("t_1", ASKS),)), entry(msgspec.to_builtins(features))
    if features.questions is OpenQuestions.ONE:
        with pytest.raises(ConversationWaits):
            check_no_open_question(target, beside)
    else:
        check_no_open_question(target, beside)


def test_the_guide_says_the_same_of_every_adapter() -> None:
    words = {OpenQuestions.ONE: "one", OpenQuestions.EACH: "each by itself", OpenQuestions.NONE: "none"}
    _, _, table = (ROOT / "docs" / "adapters.md").read_text().partition("a session's open questions")
    told = dict(re.findall(r"(?m)^\| `([a-z0-9-]+)` \| (one|each by itself|none)\b", table.partition("\n\n")[0]))
    assert {kind: told.get(kind) for kind in VENDORS} == {kind: words[vendor_of(kind).features.questions] for kind in VENDORS}


@pytest.mark.parametrize("features", [{"streams": True, "resumes": True}, {}], ids=["of a former version", "none"])
def test_an_adapter_that_says_nothing_counts_as_one_of_one_question(features: Any) -> None:
    with pytest.raises(ConversationWaits):
        check_no_open_question(entry(features), OtherTasks((row("t_1", ASKS),)))


def test_an_operator_says_that_answers_of_a_described_agent_name_their_questions() -> None:
    described = next(each.document["upstream"] for each in expectations() if each.kind == "rest")
    catalog = AdapterCatalog(Egress([]))
    assert catalog.features("rest", described).questions is OpenQuestions.ONE
    assert catalog.features("rest", {**described, "questions": "each"}).questions is OpenQuestions.EACH


@sqlite
async def test_an_operator_says_that_contexts_of_an_a2a_agent_hold_one_question(home: House) -> None:
    agent = await home.agent(CallbackAgent("payer"))
    agent.state = "TASK_STATE_INPUT_REQUIRED"
    desk = Reception(home)
    for value, status in (("many", 422), ("one", 200)):
        answer = await desk.ask("PATCH", "/api/agents/payer", body={"upstream": {"questions": value}})
        assert answer.status_code == status, answer.text
    first = await says(home, "pay 5", agent="payer")
    assert (await says(home, "pay 1000000", agent="payer", contextId=first["contextId"]))["code"] == -32014


def test_only_a_question_at_the_agent_keeps_others_out() -> None:
    for waiting in (VendorRef(), VendorRef("s", "r")):
        check_no_open_question(entry(ONE), OtherTasks((row("t_1", waiting),)))
    check_no_open_question(entry(), OtherTasks((row("t_1", VendorRef("c", "t")),)))  # of A2A, where an answer names its task
    for target, waiting in ((entry(questions="one"), VendorRef("c", "t")), (entry(), VendorRef("c", "c:t"))):
        with pytest.raises(ConversationWaits):
            check_no_open_question(target, OtherTasks((row("t_1", waiting),)))


def test_an_answer_is_refused_once_the_conversation_went_on() -> None:  # attack HIT-01
    mine, later = row("t_1", ASKS), row("t_2", ASKS, updated=2)
    with pytest.raises(ConversationWaits, match="t_2"):
        check_question_is_current(entry(ONE), mine, OtherTasks((later,), (later,)))
    with pytest.raises(BadPromptAnswer, match="went on without an answer"):
        check_question_is_current(entry(ONE), mine, OtherTasks((), (row("t_2", VendorRef("s", "r"), TaskState.COMPLETED, 2),)))
    check_question_is_current(
        entry(ONE), mine, OtherTasks((), (row("t_2", VendorRef(), TaskState.REJECTED, 2),))
    )  # the agent never heard of it
    check_question_is_current(entry(ONE), mine, OtherTasks((), (row("t_0", VendorRef("s", "r"), TaskState.COMPLETED, 0),)))


def test_a_session_whose_question_may_still_be_open_is_given_up() -> None:  # attack HIT-01
    mine, over = row("t_9", VendorRef()), row("t_1", replace(ASKS, kept={"sequence": 1}), TaskState.CANCELED)
    anew = ref_to_continue(entry(ONE), mine, OtherTasks((), (over,)))
    assert anew is not None and (anew.context_id, anew.kept) == ("", {"sequence": 1})
    assert anew.session and anew.session != session_id_of(mine)
    after = ref_to_continue(entry(ONE), mine, OtherTasks((), (row("t_2", replace(anew, context_id="s-2"), TaskState.COMPLETED), over)))
    assert after is not None and (after.context_id, after.session) == ("s-2", anew.session)
    each = ref_to_continue(entry({"questions": OpenQuestions.EACH}), mine, OtherTasks((), (over,)))
    assert each is not None and (each.context_id, each.session) == ("s", "")


async def test_a_conversation_keeps_whether_a_message_reached_its_session() -> None:
    for ref in (VendorRef("s"), VendorRef("s", is_unused=True)):
        found = ref_to_continue(entry(ONE), row("t_9", VendorRef()), OtherTasks((), (row("t_1", ref, TaskState.FAILED),)))
        assert found is not None and found.is_unused is ref.is_unused
        asking = replace(turn("hello"), ref=found)
        waiting = pending_ref(
            asking, call_to("http://a.example/"), ConsentNeeded("https://gateway.example/connect/k_1", "k_1", "sales")
        ).ref
        assert agent_ref(waiting).is_unused is ref.is_unused


async def test_an_answer_that_waits_for_a_consent_still_answers_its_question() -> None:  # attack HIT-01
    asked = ConsentNeeded("https://gateway.example/connect/k_1", "k_1", "sales")
    answering = replace(turn("yes"), ref=ASKS)
    kept = pending_ref(answering, call_to("http://a.example/", 60.0), asked)
    assert isinstance(kept, RefLearned) and isinstance(consent_question(asked), Ask)
    ref = msgspec.json.decode(msgspec.json.encode(kept.ref), type=VendorRef)
    assert agent_ref(ref) == ASKS
    with pytest.raises(ConversationWaits):
        check_no_open_question(entry(ONE), OtherTasks((row("t_1", ref, TaskState.AUTH_REQUIRED),)))
    sending = AgentRequest("sales", answering.message, TraceContext())
    again = build_turn(sending, entry(ONE), row("t_1", ref), ref)
    assert again.answers == find_answers(ASKS.prompts or (), answering.message)
