"""Agents of vendors behind the doors: registered without a card, asked and answered, each person in a session of their own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.tasks.contracts.prompts import PROMPT_ID_KEY
from registry.cards.card import RegistrationStatus
from tests.fakes.a2a_agents import serving
from tests.fakes.graph_server import DECISION, GraphServer
from tests.fakes.house import House, house
from tests.fakes.mcp_tasks import ask
from tests.fakes.reception import Reception

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
UPSTREAM = {"headers": {"x-api-key": "operators-secret-key"}, "assistant": "echo"}


@pytest.fixture
async def graph() -> GraphServer:
    return GraphServer("operators-secret-key")


@pytest.fixture
async def desk(home: House, graph: GraphServer) -> AsyncIterator[Reception]:
    """With the graph registered as `sales`."""
    async with serving(graph) as url:
        desk = Reception(home)
        answer = await desk.post("/api/agents", url=url, kind="langgraph", name="sales", upstream=UPSTREAM)
        assert answer.status_code == 201, answer.text
        yield desk


async def said(desk: Reception, *parts: dict[str, Any], user: str = "alice", **more: Any) -> Any:
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": list(parts), **more}
    answer = await desk.home.rpc("/agents/sales", desk.home.token(user), "SendMessage", {"message": message}, **{"A2A-Version": "1.0"})
    told = answer.json()
    return told["result"]["task"] if "result" in told else told["error"]


def text(task: Any) -> str:
    return " ".join(part.get("text", "") for artifact in task.get("artifacts", ()) for part in artifact["parts"])


def state(task: Any) -> str:
    return str(task["status"]["state"]).removeprefix("TASK_STATE_")


async def asking(desk: Reception, user: str = "alice", **more: Any) -> Any:
    task = await said(desk, {"text": "approve refund"}, user=user, **more)
    assert state(task) == "INPUT_REQUIRED", task
    return task


async def test_an_agent_without_a_card_gets_one_that_the_gateway_writes(desk: Reception) -> None:
    entry = desk.home.gateway.registry.find("default", "sales")
    assert (entry.kind, entry.status, entry.delegation) == ("langgraph", RegistrationStatus.ACTIVE, "none")
    assert entry.card is not None and (entry.card.name, entry.card.description) == ("echo", "Echoes.")
    card = (await desk.home.http.get("/agents/sales/.well-known/agent-card.json")).json()
    assert card["supportedInterfaces"][0]["url"].endswith("/agents/sales")
    assert "operators-secret-key" not in str(card)
    assert (await desk.ask("POST", "/api/agents/sales/refresh")).status_code == 200
    assert desk.home.gateway.registry.find("default", "sales").status is RegistrationStatus.ACTIVE


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"upstream": {**UPSTREAM, "assistnat": "echo"}}, "upstream.assistnat"),
        ({"upstream": {}}, "upstream.assistant"),
        ({"upstream": {**UPSTREAM, "assistant": 7}}, "upstream.assistant"),
        ({"upstream": {**UPSTREAM, "assistant": "nobody"}}, None),
        ({"upstream": UPSTREAM, "url": "", "card": {}}, "card"),
        ({"kind": "a2a", "upstream": {"assistant": "echo"}}, "upstream.assistant"),
    ],
)
async def test_options_are_those_of_the_kind(desk: Reception, body: dict[str, Any], field: str | None) -> None:
    url = desk.home.gateway.registry.find("default", "sales").url
    answer = await desk.post("/api/agents", **{"url": url, "kind": "langgraph", "name": "other", **body})
    assert answer.status_code in ((422,) if field else (502,)), answer.text
    assert field is None or answer.json()["detail"].startswith(field)


async def test_an_agent_of_the_configuration_file_is_one_like_any_other(graph: GraphServer, tmp_path: Path, database_url: str) -> None:
    async with serving(graph) as url:
        agents = [{"name": "sales", "url": url, "kind": "langgraph", "upstream": UPSTREAM}]
        agents.append({"name": "misset", "url": url, "kind": "langgraph", "upstream": {"assistant": ["echo"]}})
        async with house(tmp_path / "seeded", database_url, agents=agents) as home:
            assert home.gateway.registry.find("default", "misset").status is RegistrationStatus.DOWN
            assert text(await said(Reception(home), {"text": "hello"})) == "echo: hello"


async def test_only_what_an_agent_answers_is_in_the_artifacts_with_what_it_used(desk: Reception, graph: GraphServer) -> None:
    task = await said(desk, {"text": "hello"})
    assert (state(task), text(task)) == ("COMPLETED", "echo: hello")
    assert task["metadata"]["urn:interlock:a2a:usage"] == {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    assert graph.headers["x-api-key"] == "operators-secret-key"
    assert "authorization" not in graph.headers and "interlock-delegation" not in graph.headers  # no hop token for who knows none


async def test_what_a_failing_agent_says_stays_inside(desk: Reception, graph: GraphServer) -> None:
    failed = await said(desk, {"text": "fail now"})
    assert state(failed) == "FAILED" and "/srv" not in str(failed)
    graph.secret = "another-secret-key"
    refused = await said(desk, {"text": "hello"})
    assert state(refused) == "FAILED" and "/srv" not in str(refused) and "operators-secret-key" not in str(refused)
    assert refused["status"]["message"]["metadata"]["urn:interlock:a2a:error"] == {"reason": "AGENT_REFUSES"}


async def test_a_question_is_shown_kept_and_answered_by_text(desk: Reception, graph: GraphServer) -> None:
    task = await asking(desk)
    shown = [part["data"] for part in task["status"]["message"]["parts"] if "data" in part]
    assert shown == [{PROMPT_ID_KEY: "i-1", "kind": "input", "text": "Refund 42 EUR?", "data": {"question": "Refund 42 EUR?"}}]
    answered = await said(desk, {"text": "yes"}, taskId=task["id"])
    assert (state(answered), text(answered)) == ("COMPLETED", 'decision was: "yes"')
    assert graph.bodies[0][0] == graph.bodies[1][0]  # the same thread


async def test_an_answer_has_to_fit_and_another_one_may_follow(desk: Reception, graph: GraphServer) -> None:
    graph.schema = DECISION
    task = await asking(desk)
    for wrong in (
        {"text": "maybe"},
        {"data": {"approve": "maybe"}},
        {"data": {PROMPT_ID_KEY: "i-9", "value": {"approve": True}}},
        {"data": {PROMPT_ID_KEY: "i-1", "value": 5}},
        {"url": "https://a.example/"},
    ):
        error = await said(desk, wrong, taskId=task["id"])
        assert error.get("code") == -32602, error
        assert "maybe" not in str(error)
    assert len(graph.bodies) == 1
    answered = await said(desk, {"data": {PROMPT_ID_KEY: "i-1", "value": {"approve": False, "note": "no"}}}, taskId=task["id"])
    assert text(answered) == 'decision was: {"approve": false, "note": "no"}'


async def test_several_questions_are_answered_together_by_their_ids(desk: Reception, graph: GraphServer) -> None:
    graph.several = True
    task = await asking(desk)
    one, two = ({"data": {PROMPT_ID_KEY: name, "value": value}} for name, value in (("i-1", "yes"), ("i-2", "B")))
    assert (await said(desk, {"text": "yes"}, taskId=task["id"]))["code"] == -32602
    assert (await said(desk, one, taskId=task["id"]))["code"] == -32602
    assert (await said(desk, one, one, two, taskId=task["id"]))["code"] == -32602
    assert text(await said(desk, one, two, taskId=task["id"])) == 'decision was: {"i-1": "yes", "i-2": "B"}'


async def test_an_answer_to_no_open_question_is_refused(desk: Reception, graph: GraphServer) -> None:
    error = await said(desk, {"data": {PROMPT_ID_KEY: "i-1", "value": True}})
    assert error["code"] == -32602 and graph.bodies == []


async def test_a_conversation_is_one_session_of_one_person(desk: Reception, graph: GraphServer) -> None:
    first = await said(desk, {"text": "hello"})
    again = await said(desk, {"text": "again"}, contextId=first["contextId"])
    foreign = await said(desk, {"text": "mine"}, user="bob", contextId=first["contextId"])
    assert [state(task) for task in (first, again, foreign)] == ["COMPLETED"] * 3
    threads = [thread for thread, _ in graph.bodies]
    assert threads[0] == threads[1] != threads[2]


async def test_turns_of_one_session_wait_for_each_other(desk: Reception, graph: GraphServer) -> None:
    first = await said(desk, {"text": "hello"})
    graph.most = 0
    both = [said(desk, {"text": str(number)}, contextId=first["contextId"]) for number in range(4)]
    assert [state(task) for task in await asyncio.gather(*both)] == ["COMPLETED"] * 4
    assert graph.most == 1
    assert len({thread for thread, _ in graph.bodies}) == 1


async def called(desk: Reception, **more: Any) -> Any:
    """A tools/call of an MCP client that can be asked."""
    params: dict[str, Any] = {"name": "sales", "arguments": {"message": "approve refund"}, **more}
    return (await ask(desk.home, "tools/call", params, "alice", {"elicitation": {}}, "/mcp"))["result"]


@pytest.mark.parametrize(
    ("schema", "form", "content", "decision"),
    [
        (None, {"answer": {"type": "string"}}, {"answer": "yes"}, '"yes"'),
        (DECISION, DECISION["properties"], {"approve": True}, '{"approve": true}'),
        ({"type": "boolean"}, {"answer": {"type": "boolean"}}, {"answer": True}, "true"),
        ({"enum": [["a"], ["b"]]}, None, {"answer": '["b"]'}, '["b"]'),
        ({"type": "boolean"}, {"answer": {"type": "boolean"}}, None, "false"),  # a refusal is an answer
    ],
    ids=["text", "object", "flag", "json", "declined"],
)
async def test_an_mcp_client_is_asked_by_a_form(
    desk: Reception, graph: GraphServer, schema: Any, form: Any, content: Any, decision: str
) -> None:
    graph.schema = schema
    first = await called(desk)
    assert first["resultType"] == "input_required", first
    ((key, question),) = first["inputRequests"].items()
    assert question["params"]["message"] == "Refund 42 EUR?"
    assert form is None or question["params"]["requestedSchema"]["properties"] == form
    said = {"action": "accept", "content": content} if content else {"action": "decline"}
    ended = await called(desk, requestState=first["requestState"], inputResponses={key: said})
    assert ended["content"][0]["text"] == f"decision was: {decision}"


async def test_a_lost_conversation_fails_once_and_the_next_message_opens_a_new_session(desk: Reception, graph: GraphServer) -> None:
    first = await said(desk, {"text": "hello"})
    graph.forget()
    lost = await said(desk, {"text": "and now?"}, contextId=first["contextId"])
    assert (state(lost), lost["status"]["message"]["metadata"]["urn:interlock:a2a:error"]) == ("FAILED", {"reason": "SESSION_LOST"})
    anew = await said(desk, {"text": "hello again"}, contextId=first["contextId"])
    assert (state(anew), text(anew)) == ("COMPLETED", "echo: hello again")
    assert [thread for thread, _ in graph.bodies] == ["thread-1", "thread-2"]


async def test_a_session_that_no_message_reached_is_replaced_without_a_failure(desk: Reception, graph: GraphServer) -> None:
    graph.busy = 429
    refused = await said(desk, {"text": "hello"})
    assert refused["status"]["message"]["metadata"]["urn:interlock:a2a:error"]["reason"] == "AGENT_BUSY"
    graph.busy = 0
    graph.forget()
    task = await said(desk, {"text": "hello"}, contextId=refused["contextId"])
    assert (state(task), text(task)) == ("COMPLETED", "echo: hello")
    assert [thread for thread, _ in graph.bodies] == ["thread-2"]


async def test_a_run_is_canceled_at_the_agent(desk: Reception, graph: GraphServer) -> None:
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "slow"}]}
    params = {"message": message, "configuration": {"returnImmediately": True}}
    headers = {"A2A-Version": "1.0"}
    begun = (await desk.home.rpc("/agents/sales", desk.home.token("alice"), "SendMessage", params, **headers)).json()["result"]["task"]
    async with asyncio.timeout(60):
        await graph.working.wait()
    ended = (await desk.home.rpc("/agents/sales", desk.home.token("alice"), "CancelTask", {"id": begun["id"]}, **headers)).json()
    assert state(ended["result"]) == "CANCELED" and graph.canceled.is_set()
