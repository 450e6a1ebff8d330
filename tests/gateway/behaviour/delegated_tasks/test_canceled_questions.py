"""Claims about canceling tasks that wait for an answer: they end, and their old question can't be answered by what follows."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.calls.turns.cancellation import DROPPED_TEXT
from tests.fakes.a2a_agents import serving
from tests.fakes.devui_server import DevUiServer
from tests.fakes.graph_server import GraphServer
from tests.fakes.house import House
from tests.fakes.reception import Reception
from tests.fakes.strict_agent import StrictAgent

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


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


async def says(home: House, agent: str, text: str, **more: Any) -> Any:
    answer = await home.send(home.token("alice"), agent, text, **more)
    return answer["result"]["task"] if "result" in answer else answer["error"]


async def cancels(home: House, agent: str, task: Any) -> Any:
    answer = (await home.rpc(f"/agents/{agent}", home.token("alice"), "CancelTask", {"id": task["id"]}, **{"A2A-Version": "1.0"})).json()
    return answer.get("result") or answer["error"]


def state(task: Any) -> str:
    return str(task["status"]["state"]).removeprefix("TASK_STATE_")


def words(task: Any) -> str:
    return " ".join(part.get("text", "") for part in task["status"].get("message", {}).get("parts", ()))


async def test_the_interrupt_of_a_graph_is_dropped_at_the_agent_and_its_thread_goes_on(home: House, graph: GraphServer) -> None:
    task = await says(home, "sales", "pay 5")
    canceled = await cancels(home, "sales", task)
    assert state(canceled) == "CANCELED" and DROPPED_TEXT not in words(canceled)
    assert graph.open == {"thread-1": []}
    assert state(await says(home, "sales", "hello", contextId=task["contextId"])) == "COMPLETED"
    assert [thread for thread, _ in graph.bodies] == ["thread-1", "thread-1"]
    assert (await says(home, "sales", "yes", taskId=task["id"]))["code"] == -32004 and graph.decided == []


async def test_another_interrupt_of_the_thread_is_left_alone(home: House, graph: GraphServer) -> None:
    task = await says(home, "sales", "pay 5")
    graph.open["thread-1"] = others = [{"id": "i-9", "value": "Pay 7?", "response_schema": None}]  # by another hand
    canceled = await cancels(home, "sales", task)
    assert state(canceled) == "CANCELED" and words(canceled) == DROPPED_TEXT
    assert graph.open["thread-1"] == others
    assert state(await says(home, "sales", "hello", contextId=task["contextId"])) == "COMPLETED"
    assert graph.bodies[-1][0] == "thread-2"  # where that interrupt does not wait


async def test_a_task_whose_agent_is_not_reached_is_canceled_here(home: House, graph: GraphServer) -> None:
    task = await says(home, "sales", "pay 5")
    graph.secret = "another key"
    canceled = await cancels(home, "sales", task)
    assert state(canceled) == "CANCELED" and words(canceled) == DROPPED_TEXT


async def test_a_question_of_a_workflow_in_devui_is_left_and_the_conversation_begins_anew(home: House, devui: DevUiServer) -> None:
    task = await says(home, "payer", "pay 5")
    canceled = await cancels(home, "payer", task)
    assert state(canceled) == "CANCELED" and words(canceled) == DROPPED_TEXT
    again = await says(home, "payer", "pay 7", contextId=task["contextId"])
    assert state(again) == "INPUT_REQUIRED"
    assert [body["conversation"] for body in devui.bodies] == ["conv_1", "conv_2"]
    assert state(await says(home, "payer", "yes", taskId=again["id"])) == "COMPLETED"
    assert devui.decided == [("pay 7?", "yes")]


async def test_an_a2a_task_that_waits_is_canceled_here_where_its_agent_does_not_cancel_it(home: House) -> None:
    agent = StrictAgent()
    async with serving(agent) as url:
        await home.registered("refunds", url)
        task = await says(home, "refunds", "approve refund")
        canceled = await cancels(home, "refunds", task)
        assert state(canceled) == "CANCELED" and words(canceled) == DROPPED_TEXT
        moved = await says(home, "refunds", "approve refund")
        agent.said = "yes, elsewhere"
        assert (await cancels(home, "refunds", moved))["code"] == -32002  # it went on by itself, and is done
