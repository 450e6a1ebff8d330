"""Tasks of MCP servers that speak the extension: relayed under ids of ours, to whoever called the tool and may still call it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from sqlalchemy import select

from gateway.calls.consent.approval_requests import ApprovalRequests
from gateway.ingress.mcp_server.tasks import store as task_store
from gateway.ingress.mcp_server.tasks.store import ServerTask, ServerTaskStore
from gateway.storage.database import Database
from policies.authority import RulingRequest
from policies.delegation.chain import Hop
from policies.delegation.history import HistoryMark, record_mark
from policies.delegation.rulings import act_of_calling_tool, act_of_following_task
from policies.tables import audit_records
from tests.fakes.a2a_agents import serving
from tests.fakes.authority import Scene
from tests.fakes.house import TRACE, House, open_house
from tests.fakes.mcp_task_server import TaskServer
from tests.fakes.mcp_tasks import TASKS, ask, older
from tests.fakes.mcp_wire import session
from tests.gateway.ingress.mcp_server.tasks.test_legacy_server_tasks import old_desk

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
async def test_a_task_that_failed_tells_what_is_plain_of_its_error(open_home: House, words: str, shown: bool) -> None:
    server = await desk(open_home)
    task = await task_of(open_home)
    server.tasks["task-1"] |= {
        "status": "failed",
        "statusMessage": words,
        "error": {"code": -32000, "message": f"Order 7 failed. {words}", "data": "secret"},
    }
    with structlog.testing.capture_logs() as lines:
        ended = (await ask(open_home, "tasks/get", {"taskId": task}, path="/mcp/desk"))["result"]
    assert ended["error"] == {"code": -32000, "message": f"Order 7 failed. {words if shown else '[withheld]'}"}
    assert ended.get("statusMessage") == (words if shown else None)
    (line,) = [line for line in lines if line["event"] == "server_failed"]
    assert (line["server"], line["task_id"]) == ("desk", task)
    assert words in line["detail"] and "Order 7 failed" in line["detail"]


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
    await open_home.gateway.database.refresh_epochs()
    gone = await ask(open_home, "tasks/get", {"taskId": task}, "mel", path="/mcp")
    assert gone["error"]["code"] == -32602 and len(server.heard) == heard


async def test_a_server_gets_no_capability_that_the_client_did_not_declare(open_home: House) -> None:
    server = await desk(open_home)
    plain = await ask(open_home, "tools/call", {"name": "greet", "arguments": {}}, capabilities={}, path="/mcp/desk")
    assert plain["result"]["resultType"] == "complete"
    task = await task_of(open_home)
    unable = await ask(open_home, "tasks/get", {"taskId": task}, capabilities={"extensions": {TASKS: {}}}, path="/mcp/desk")
    assert (unable["error"]["code"], unable["error"]["data"]) == (-32021, {"requiredCapabilities": {"elicitation": {}}, "trace_id": TRACE})
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


READS = 'forbid(principal, action == Action::"callTool", resource == Tool::"desk.greet") when { context.input.kind == "%s" };'
ALWAYS = 'forbid(principal, action == Action::"callTool", resource == Tool::"desk.greet");'
PLACE = {"path": "/mcp/desk"}


@pytest.fixture
async def ruled(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    """Whose policy reads the arguments of the tool that is a task."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "ours.cedar").write_text(READS % "secret")
    async with open_house(tmp_path / "home", database_url, policies=str(tmp_path / "policies")) as built:
        yield built


class Client:
    """Of either era, with tasks of desk, a server of either era."""

    def __init__(self, home: House, held: str) -> None:
        self.home, self._held = home, held

    async def ask(self, method: str, **params: Any) -> Any:
        if self._held:
            return await older(self.home, self._held, method, params, **PLACE)
        return await ask(self.home, method, params, **PLACE)

    async def begun(self, kind: str) -> Any:
        """The id of a new task, or the refusal."""
        more = {"task": {}} if self._held else {}
        answer = await self.ask("tools/call", name="greet", arguments={"kind": kind}, **more)
        if "error" in answer:
            return answer["error"]["data"]["reason_id"]
        return answer["result"]["task"]["taskId"] if self._held else answer["result"]["taskId"]

    async def seen(self, task: str) -> Any:
        """The task's state, or why it is not told."""
        answer = await self.ask("tasks/get", taskId=task)
        if "result" in answer:
            return answer["result"]["status"]
        return answer["error"].get("data", {}).get("reason_id", answer["error"]["message"])


async def between(home: House, client: str, server: str) -> tuple[Client, Any]:
    desk_ = await desk(home) if server == "newer" else await old_desk(home)
    return Client(home, await session(home, capabilities={"elicitation": {}}) if client == "older" else ""), desk_


ERAS = pytest.mark.parametrize(("client", "server"), [(one, other) for one in ("newer", "older") for other in ("newer", "older")])


@ERAS
async def test_a_task_is_looked_after_with_the_arguments_that_it_was_begun_with(ruled: House, client: str, server: str) -> None:
    mine, _ = await between(ruled, client, server)
    assert await mine.begun("secret") == "policy-forbids"
    task = await mine.begun("plain")
    assert await mine.seen(task) in ("working", "input_required")
    if client == "newer":
        assert (await mine.ask("tasks/update", taskId=task, inputResponses={}))["result"] == {"resultType": "complete"}

    def told(connection: Any) -> list[Any]:
        return [
            json.loads(body)
            for body in connection.execute(select(audit_records.c.body).where(audit_records.c.kind == "decision")).scalars()
        ]

    calls = [one for one in await ruled.gateway.database.read(told) if one["allowed"]]
    assert {one.get("verb") for one in calls} == {None, "follow-a-task-of"} and len({one["arguments"] for one in calls}) == 1
    await ruled.gateway.database.write(lambda batch: batch.run("UPDATE mcp_tasks SET arguments = NULL", ()))
    assert await mine.seen(task) == "policy-error"  # as far as anybody knows


@ERAS
@pytest.mark.parametrize(("policy", "told"), [(READS % "plain", "policy-forbids"), (ALWAYS, "there is no such task")])
async def test_what_may_not_be_done_any_more_may_not_be_followed_but_stopped(
    ruled: House, tmp_path: Path, client: str, server: str, policy: str, told: str
) -> None:
    mine, desk_ = await between(ruled, client, server)
    task = await mine.begun("plain")
    (tmp_path / "policies" / "ours.cedar").write_text(policy)
    await ruled.gateway.rulings.policy_reload.reload()
    assert await mine.seen(task) == told
    heard = len(desk_.heard)
    if client == "newer":
        assert "error" in await mine.ask("tasks/update", taskId=task, inputResponses={"who": ADA})
    stranger = await ask(ruled, "tasks/cancel", {"taskId": task}, "mel", path="/mcp/desk")
    assert stranger["error"]["message"] == "there is no such task" and len(desk_.heard) == heard
    stopped = await mine.ask("tasks/cancel", taskId=task)
    assert "error" not in stopped and [one["status"] for one in desk_.tasks.values()] == ["cancelled"]
    assert await mine.seen(task) == told


async def test_arguments_that_are_too_long_are_not_kept(ruled: House, monkeypatch: pytest.MonkeyPatch) -> None:
    caller = await ruled.gateway.rulings.caller_resolver.authenticate(ruled.token("mel"), (ruled.url,))
    kept = ServerTaskStore(ruled.gateway.database, lambda: 1)
    monkeypatch.setattr(task_store, "ARGUMENTS_BYTES_MAX", len(b'{"kind":"12"}'))
    for kind, known in (("12", {"kind": "12"}), ("123", None)):
        task = await kept.write(caller, ServerTask("", "desk", "greet", "own", arguments={"kind": kind}), "")
        assert (await kept.find(caller, task.id)).arguments == known


async def test_what_a_call_began_is_asked_for_with_the_history_before_that_call(database: Database, tmp_path: Path) -> None:
    await database.write(lambda batch: record_mark(batch, ("acme", "x0"), HistoryMark(-1, {"amount": 9}), 7))
    memory: Any = SimpleNamespace(database=database)
    caller, told = Scene(tmp_path).caller(Hop("front")), list[Any]()
    for act in (act_of_calling_tool("crm", "refund"), act_of_following_task("crm", "refund")):
        request = await ApprovalRequests(memory).with_history(caller, RulingRequest(act, "acme", {"amount": 4}), full=True)
        told.append(request.terms.history and request.terms.history.totals)
    assert told == [{"amount": 9}, {"amount": 5}]
