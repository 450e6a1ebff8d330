"""The experimental tasks of 2025-11-25, translated: `task` on tools/call, tasks/get, tasks/result, tasks/list, tasks/cancel."""

import asyncio
from typing import Any

import pytest

from tests.fakes.house import House
from tests.fakes.mcp_tasks import PLACE, SECONDS, Pace, jobs, older
from tests.fakes.mcp_wire import document, post, session, stream
from tests.fakes.waiting import until

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
RELATED = "io.modelcontextprotocol/related-task"


@pytest.fixture(autouse=True)
def pace(monkeypatch: pytest.MonkeyPatch) -> Pace:
    return Pace(monkeypatch)


async def begun(home: House, shown: str, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await older(home, shown, "tools/call", {"name": tool, "arguments": arguments, "task": {"ttl": 60000}})
    task: dict[str, Any] = answer["result"]["task"]
    return task


async def test_a_session_of_that_revision_alone_is_told_of_tasks(open_home: House) -> None:
    await jobs(open_home)
    for version, offered in (("2025-11-25", True), ("2025-06-18", False)):
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        answer = await post(open_home, "admin", document("initialize", params), {}, PLACE)
        assert ("tasks" in answer.json()["result"]["capabilities"]) == offered
        said = await older(open_home, answer.headers["mcp-session-id"], "tasks/list", {})
        assert ("result" in said) == offered and (offered or said["error"]["code"] == -32601)
        tools = (await older(open_home, answer.headers["mcp-session-id"], "tools/list", {}))["result"]["tools"]
        support = {tool["name"]: tool["execution"]["taskSupport"] for tool in tools}
        assert (support["greet"], support["failing_job"]) == ("optional", "required")


async def test_a_task_is_polled_and_its_result_waited_for(open_home: House, pace: Pace) -> None:
    await jobs(open_home)
    shown = await session(open_home, path=PLACE)
    task = await begun(open_home, shown, "slow_compute", label="z")
    assert task["status"] == "working" and {"ttl", "pollInterval"} <= task.keys() and not {"ttlMs", "resultType"} & task.keys()
    now = (await older(open_home, shown, "tasks/get", {"taskId": task["taskId"]}))["result"]
    assert now["taskId"] == task["taskId"] and "result" not in now
    waiting = asyncio.create_task(older(open_home, shown, "tasks/result", {"taskId": task["taskId"]}))
    await until(lambda: pace.under_way == 1)
    pace.finish()
    result = (await waiting)["result"]
    assert result["content"][0]["text"] == "computed z" and result["_meta"] == {RELATED: {"taskId": task["taskId"]}}
    listed = (await older(open_home, shown, "tasks/list", {}))["result"]["tasks"]
    assert [(each["taskId"], each["status"]) for each in listed] == [(task["taskId"], "completed")]
    ended = await older(open_home, shown, "tasks/cancel", {"taskId": task["taskId"]})
    assert ended["error"]["code"] == -32602


async def test_the_result_of_a_failed_or_cancelled_call_is_its_error(open_home: House, pace: Pace) -> None:
    await jobs(open_home)
    shown = await session(open_home, path=PLACE)
    slow, broke = await begun(open_home, shown, "slow_compute"), await begun(open_home, shown, "protocol_error_job")
    stopped = (await older(open_home, shown, "tasks/cancel", {"taskId": slow["taskId"]}))["result"]
    assert (stopped["taskId"], stopped["status"]) == (slow["taskId"], "cancelled")
    assert "error" in await older(open_home, shown, "tasks/result", {"taskId": slow["taskId"]})
    pace.finish()
    assert "error" in await older(open_home, shown, "tasks/result", {"taskId": broke["taskId"]})


async def test_whoever_waits_for_the_result_is_asked_what_the_task_asks(open_home: House, pace: Pace) -> None:
    await jobs(open_home)
    shown = await session(open_home, path=PLACE, capabilities={"elicitation": {}})
    task = await begun(open_home, shown, "confirm_delete", filename="a.txt")
    pace.finish()
    body = document("tasks/result", {"taskId": task["taskId"]}, 9)
    async with asyncio.timeout(SECONDS), stream(open_home, "admin", body, {"mcp-session-id": shown}, PLACE) as events:
        question = await events.next()
        assert question["method"] == "elicitation/create" and question["params"]["_meta"] == {RELATED: {"taskId": task["taskId"]}}
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"confirm": True}}}
        assert (await post(open_home, "admin", answer, {"mcp-session-id": shown}, PLACE)).status_code == 202
        result = (await events.next())["result"]
    assert "confirm" in result["content"][0]["text"] and result["_meta"][RELATED] == {"taskId": task["taskId"]}


async def test_a_tool_that_needs_a_task_is_not_called_without_one(open_home: House) -> None:
    await jobs(open_home)
    shown = await session(open_home, path=PLACE)
    answer = await older(open_home, shown, "tools/call", {"name": "failing_job", "arguments": {}})
    assert answer["error"]["code"] == -32601


async def test_another_users_task_is_unknown_and_not_listed(open_home: House) -> None:
    await jobs(open_home)
    mine, theirs = await session(open_home, "mel", PLACE), await session(open_home, path=PLACE)
    task = await begun(open_home, theirs, "slow_compute")
    for method in ("tasks/get", "tasks/result", "tasks/cancel"):
        answer = await older(open_home, mine, method, {"taskId": task["taskId"]}, "mel")
        assert answer["error"]["code"] == -32602
    assert (await older(open_home, mine, "tasks/list", {}, "mel"))["result"]["tasks"] == []


async def test_a_plain_call_of_a_client_that_can_be_asked_waits_for_its_answer(open_home: House, pace: Pace) -> None:
    await jobs(open_home)
    shown = await session(open_home, path=PLACE, capabilities={"elicitation": {}})
    body = document("tools/call", {"name": "confirm_delete", "arguments": {"filename": "b.txt"}}, 4)
    pace.finish()
    async with asyncio.timeout(SECONDS), stream(open_home, "admin", body, {"mcp-session-id": shown}, PLACE) as events:
        question = await events.next()
        assert question["params"]["message"] == "Delete b.txt?"
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"confirm": True}}}
        await post(open_home, "admin", answer, {"mcp-session-id": shown}, PLACE)
        result = (await events.next())["result"]
    assert result["structuredContent"]["state"] == "TASK_STATE_COMPLETED" and "confirm" in result["content"][0]["text"]
