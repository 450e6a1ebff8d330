"""Claims about answers that an agent does not take: the task waits on, its question stays, and the right answer is still possible."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fakes.a2a_agents import serving
from tests.fakes.devui_server import DevUiServer
from tests.fakes.graph_server import GraphServer
from tests.fakes.house import House
from tests.fakes.mcp_tasks import ask
from tests.fakes.reception import Reception
from tests.fakes.strict_agent import INTERRUPT, StrictAgent

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
WHY = "urn:interlock:a2a:error"


@pytest.fixture
async def strict(home: House) -> AsyncIterator[StrictAgent]:
    """Registered as `refunds`."""
    agent = StrictAgent()
    async with serving(agent) as url:
        await home.registered("refunds", url)
        yield agent


@pytest.fixture
async def graph(home: House) -> AsyncIterator[GraphServer]:
    """Registered as `sales`."""
    server = GraphServer()
    async with serving(server) as url:
        answer = await Reception(home).post("/api/agents", url=url, kind="langgraph", name="sales", upstream={"assistant": "echo"})
        assert answer.status_code == 201, answer.text
        yield server


@pytest.fixture
async def devui(home: House) -> AsyncIterator[DevUiServer]:
    """Registered as `payer`."""
    server = DevUiServer()
    async with serving(server) as url:
        upstream = {"model": "flow", "dialect": "devui"}
        place = f"{url.removesuffix('/')}/v1"
        answer = await Reception(home).post("/api/agents", url=place, kind="openai-responses", name="payer", upstream=upstream)
        assert answer.status_code == 201, answer.text
        yield server


async def says(home: House, agent: str, *parts: Any, **more: Any) -> Any:
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": list(parts), **more}
    answer = (await home.rpc(f"/agents/{agent}", home.token("alice"), "SendMessage", {"message": message}, **{"A2A-Version": "1.0"})).json()
    return answer["result"]["task"] if "result" in answer else answer["error"]


async def stands(home: House, agent: str, task: Any) -> Any:
    return (await home.send_get(home.token("alice"), agent, task["id"]))["result"]


def state(task: Any) -> str:
    return str(task["status"]["state"]).removeprefix("TASK_STATE_")


def parts(task: Any) -> list[Any]:
    return [part["data"] for part in task["status"]["message"]["parts"] if "data" in part]


async def test_an_a2a_agent_refuses_a_text_and_takes_data(home: House, strict: StrictAgent) -> None:
    task = await says(home, "refunds", {"text": "approve refund"})
    for _ in range(2):
        refused = await says(home, "refunds", {"text": "yes"}, taskId=task["id"])
        assert refused["code"] == -32602 and refused["data"][-1]["reason"] == "BAD_ANSWER", refused
        waiting = await stands(home, "refunds", task)
        assert (state(waiting), parts(waiting)) == ("INPUT_REQUIRED", [INTERRUPT])
        assert waiting["status"]["message"]["metadata"] == {WHY: {"reason": "BAD_ANSWER"}}
        assert len(waiting["status"]["message"]["parts"]) == 3  # the reason once, and the question as it was
    answer = {"data": {"interruptResponse": {"interruptId": "i-1", "response": "yes"}}}
    assert state(await says(home, "refunds", answer, taskId=task["id"])) == "COMPLETED"
    assert strict.said == "yes"


async def test_a_stream_of_a_refused_answer_ends_with_the_question(home: House, strict: StrictAgent) -> None:
    task = await says(home, "refunds", {"text": "approve refund"})
    message = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "yes"}], "taskId": task["id"]}
    answer = await home.rpc("/agents/refunds", home.token("alice"), "SendStreamingMessage", {"message": message}, **{"A2A-Version": "1.0"})
    events = [json.loads(line[5:])["result"] for line in answer.text.splitlines() if line.startswith("data:")]
    last = events[-1]["statusUpdate"]
    assert (state(last), parts(last)) == ("INPUT_REQUIRED", [INTERRUPT])
    assert last["status"]["message"]["metadata"][WHY] == {"reason": "BAD_ANSWER"}


async def test_an_agent_of_a_vendor_refuses_an_answer_and_is_answered_again(home: House, graph: GraphServer) -> None:
    task = await says(home, "sales", {"text": "pay 5"})
    graph.refuses = 422
    refused = await says(home, "sales", {"text": "yes"}, taskId=task["id"])
    assert refused["code"] == -32602 and refused["data"][-1]["reason"] == "BAD_ANSWER"
    waiting = await stands(home, "sales", task)
    assert state(waiting) == "INPUT_REQUIRED" and [each["promptId"] for each in parts(waiting)] == ["i-1"]
    graph.refuses = 0
    assert state(await says(home, "sales", {"text": "yes"}, taskId=task["id"])) == "COMPLETED"
    assert graph.decided == [("Pay 5?", "yes")]


@pytest.mark.parametrize(
    ("status", "told"),
    [(409, {"reason": "AGENT_BUSY", "retryable": True}), (401, {"reason": "AGENT_REFUSES"})],
    ids=["busy", "credential"],
)
async def test_an_agent_that_takes_nothing_now_leaves_its_task_waiting(
    home: House, graph: GraphServer, status: int, told: dict[str, Any]
) -> None:
    task = await says(home, "sales", {"text": "pay 5"})
    graph.refuses = status
    waiting = await says(home, "sales", {"text": "yes"}, taskId=task["id"])
    assert state(waiting) == "INPUT_REQUIRED" and waiting["status"]["message"]["metadata"][WHY] == told
    graph.refuses = 0
    assert state(await says(home, "sales", {"text": "yes"}, taskId=task["id"])) == "COMPLETED"


async def test_an_answer_that_may_have_been_taken_ends_its_task(home: House, graph: GraphServer) -> None:
    task = await says(home, "sales", {"text": "pay 5"})
    graph.refuses = 500
    assert state(await says(home, "sales", {"text": "yes"}, taskId=task["id"])) == "FAILED"


async def test_an_mcp_client_is_told_and_the_task_waits(home: House, graph: GraphServer) -> None:
    task = await says(home, "sales", {"text": "pay 5"})
    graph.refuses = 422
    params = {"name": "sales", "arguments": {"message": "yes", "task_id": task["id"]}}
    error = (await ask(home, "tools/call", params, "alice", {}, "/mcp"))["error"]
    assert error["code"] == -32602 and "was refused by the agent as an answer" in error["message"], error
    assert state(await stands(home, "sales", task)) == "INPUT_REQUIRED"


@pytest.mark.parametrize(
    ("refuses", "told"),
    [
        ("Response type mismatch for request ID r-1", None),
        ("Workflow is already running; concurrent runs are not allowed on the same instance.", {"reason": "AGENT_BUSY", "retryable": True}),
    ],
    ids=["type", "busy"],
)
async def test_a_workflow_of_devui_refuses_an_answer_and_is_answered_again(
    home: House, devui: DevUiServer, refuses: str, told: dict[str, Any] | None
) -> None:
    task = await says(home, "payer", {"text": "pay 5"})
    devui.refuses = refuses
    answered = await says(home, "payer", {"text": "yes"}, taskId=task["id"])
    assert answered["status"]["message"]["metadata"][WHY] == told if told else answered["code"] == -32602
    devui.refuses = ""
    assert state(await says(home, "payer", {"text": "yes"}, taskId=task["id"])) == "COMPLETED"
    assert devui.decided == [("pay 5?", "yes")]
