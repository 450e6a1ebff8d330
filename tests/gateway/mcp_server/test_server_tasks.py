"""Tasks of MCP servers that speak the extension: relayed under ids of ours, to whoever called the tool and may still call it."""

from typing import Any

import pytest
import structlog

from tests.fakes.a2a_agents import serving
from tests.fakes.house import House
from tests.fakes.mcp_task_server import TaskServer
from tests.fakes.mcp_tasks import TASKS, ask, older
from tests.fakes.mcp_wire import session

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ADA = {"action": "accept", "content": {"name": "Ada"}}


async def desk(home: House) -> TaskServer:
    server = TaskServer()
    url = await home.stack.enter_async_context(serving(server))
    await home.server("desk", "greet", url=url.rstrip("/"))
    return server


async def task_of(home: House, user: str = "admin", path: str = "/mcp/desk", tool: str = "greet") -> str:
    result = (await ask(home, "tools/call", {"name": tool, "arguments": {}}, user, path=path))["result"]
    assert result["resultType"] == "task" and result["ttlMs"] == 60000
    task: str = result["taskId"]
    return task


@pytest.mark.parametrize(("path", "tool", "uri"), [("/mcp/desk", "greet", "note://1"), ("/mcp", "desk_greet", "desk+note://1")])
async def test_a_servers_task_is_looked_after_under_an_id_of_ours(open_home: House, path: str, tool: str, uri: str) -> None:
    server = await desk(open_home)
    task = await task_of(open_home, path=path, tool=tool)
    assert task not in server.tasks
    asking = (await ask(open_home, "tasks/get", {"taskId": task}, path=path))["result"]
    assert (asking["taskId"], asking["status"], list(asking["inputRequests"])) == (task, "input_required", ["who"])
    ack = await ask(open_home, "tasks/update", {"taskId": task, "inputResponses": {"who": ADA}}, path=path)
    assert ack["result"] == {"resultType": "complete"}
    done = (await ask(open_home, "tasks/get", {"taskId": task}, path=path))["result"]
    assert done["status"] == "completed" and done["result"]["content"][0]["text"] == "hello Ada"
    assert done["result"]["content"][1]["uri"] == uri
    assert server.names[1:] == ["task-1"] * 3 and {each["params"]["taskId"] for each in server.heard[1:]} == {"task-1"}
    assert task not in str(server.heard)


async def test_canceling_reaches_the_server(open_home: House) -> None:
    server = await desk(open_home)
    task = await task_of(open_home)
    assert (await ask(open_home, "tasks/cancel", {"taskId": task}, path="/mcp/desk"))["result"] == {"resultType": "complete"}
    assert server.tasks["task-1"]["status"] == "cancelled"


@pytest.mark.parametrize("status", ["resting", ["working"], {}, None])
async def test_a_server_whose_task_is_in_no_state_is_said_to_be_at_fault(open_home: House, status: Any) -> None:
    server = await desk(open_home)
    task = await task_of(open_home)
    server.tasks["task-1"]["status"] = status
    error = (await ask(open_home, "tasks/get", {"taskId": task}, path="/mcp/desk"))["error"]
    assert error["code"] == -32015


# attack LOG-02
@pytest.mark.parametrize(("words", "shown"), [("out of stock", True), ("/srv/desk/tools.py is missing", False)])
async def test_a_task_that_failed_tells_its_error_in_our_words_and_plain_words_of_its_own(
    open_home: House, words: str, shown: bool
) -> None:
    server = await desk(open_home)
    task = await task_of(open_home)
    server.tasks["task-1"] |= {
        "status": "failed",
        "statusMessage": words,
        "error": {"code": -32000, "message": "secret words", "data": "secret"},
    }
    with structlog.testing.capture_logs() as lines:
        ended = (await ask(open_home, "tasks/get", {"taskId": task}, path="/mcp/desk"))["result"]
    assert ended["error"] == {"code": -32603, "message": "The server refused the call"}
    assert ended.get("statusMessage") == (words if shown else None)
    (line,) = [line for line in lines if line["event"] == "server_failed"]
    assert (line["server"], line["task_id"]) == ("desk", task)
    assert words in line["detail"] and "secret words" in line["detail"]


# attack: the server's own id, another user's task, another path, a tool that may not be called any more
async def test_nobody_reaches_a_servers_task_but_who_called_the_tool_and_may_call_it(open_home: House) -> None:
    server = await desk(open_home)
    await open_home.server("other", "greet", url="http://127.0.0.1:1")
    task = await task_of(open_home, "mel")
    heard = len(server.heard)
    wrong = [
        await ask(open_home, "tasks/get", {"taskId": "task-1"}, "mel", path="/mcp/desk"),
        await ask(open_home, "tasks/get", {"taskId": task}, "admin", path="/mcp/desk"),
        await ask(open_home, "tasks/get", {"taskId": task}, "nora", path="/mcp"),
        await ask(open_home, "tasks/get", {"taskId": task}, "mel", path="/mcp/other"),
        await ask(open_home, "tasks/cancel", {"taskId": task}, "admin", path="/mcp"),
        await ask(open_home, "tasks/update", {"taskId": task, "inputResponses": {"who": ADA}}, "admin", path="/mcp"),
    ]
    assert {(answer["error"]["code"], answer["error"]["message"]) for answer in wrong} == {(-32602, "there is no such task")}
    assert len(server.heard) == heard
    await open_home.gateway.registry.remove("default", "desk")
    await open_home.gateway.database.refresh()
    gone = await ask(open_home, "tasks/get", {"taskId": task}, "mel", path="/mcp")
    assert gone["error"]["code"] == -32602 and len(server.heard) == heard


async def test_a_server_gets_no_capability_that_the_client_did_not_declare(open_home: House) -> None:
    server = await desk(open_home)
    plain = await ask(open_home, "tools/call", {"name": "greet", "arguments": {}}, capabilities={}, path="/mcp/desk")
    assert plain["result"]["resultType"] == "complete"
    task = await task_of(open_home)
    unable = await ask(open_home, "tasks/get", {"taskId": task}, capabilities={"extensions": {TASKS: {}}}, path="/mcp/desk")
    assert (unable["error"]["code"], unable["error"]["data"]) == (-32021, {"requiredCapabilities": {"elicitation": {}}})
    declared = server.heard[-1]["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"]
    assert declared == {"extensions": {TASKS: {}}}


async def test_an_older_client_has_a_modern_servers_task_in_its_own_words(open_home: House) -> None:
    server = await desk(open_home)
    home: Any = await session(open_home, capabilities={"elicitation": {}})
    made = await older(open_home, home, "tools/call", {"name": "greet", "arguments": {}, "task": {"ttl": 1000}}, path="/mcp/desk")
    seed = made["result"]["task"]
    assert (seed["status"], seed["ttl"], seed["pollInterval"]) == ("working", 60000, 50) and seed["taskId"] != "task-1"
    assert "task" not in server.heard[-1]["params"]
    named = {"taskId": seed["taskId"]}
    shown = (await older(open_home, home, "tasks/get", named, path="/mcp/desk"))["result"]
    assert shown["status"] == "input_required" and not {"inputRequests", "ttlMs", "resultType"} & shown.keys()
    stopped = (await older(open_home, home, "tasks/cancel", named, path="/mcp/desk"))["result"]
    assert (stopped["taskId"], stopped["status"]) == (seed["taskId"], "cancelled")
    again = await older(open_home, home, "tasks/cancel", named, path="/mcp/desk")
    assert again["error"]["code"] == -32602
