"""Tasks of servers of 2025-11-25: for clients of 2026-07-28 in the words of the extension, for those of their own era as they are."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from mcp_types import ElicitResult

from gateway.ingress.mcp_server.elicitation.server_questions import InputRequest
from gateway.ingress.mcp_server.tasks import legacy_server_tasks as older_server_tasks
from gateway.ingress.mcp_server.tasks.store import ServerTask, ServerTaskStore
from registry.cards.card import Family, RegistrationStatus
from registry.rows import Candidate, offer_fields
from tests.fakes.house import TRACE, House, house
from tests.fakes.mcp_clients import client_of
from tests.fakes.mcp_older_tasks import OlderTaskServer
from tests.fakes.mcp_servers import serving
from tests.fakes.mcp_task_server import TaskServer
from tests.fakes.mcp_tasks import TAKES, TASKS, ask, older
from tests.fakes.mcp_wire import document, modern, post, session, stream
from tests.fakes.waiting import until

SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ADA = {"action": "accept", "content": {"name": "Ada"}}
NO_SUCH = (-32602, "there is no such task")


async def old_desk(home: House, support: str = "optional", server: OlderTaskServer | None = None) -> OlderTaskServer:
    server = server or OlderTaskServer(support)
    url = await home.stack.enter_async_context(serving(server.app, grace=0))
    lists = offer_fields({"tools": [{"name": "greet", "inputSchema": {"type": "object"}, "execution": {"taskSupport": server.support}}]})
    given: dict[str, Any] = {"tenant": "default", "name": "desk", "family": Family.SERVER, "kind": "mcp", "owner": "operator"}
    facts = {"era": "legacy", "protocol_version": "2025-11-25"}
    await home.gateway.registry.add(Candidate(**given, url=f"{url}/mcp", status=RegistrationStatus.ACTIVE, facts=facts, **lists))
    await home.gateway.database.refresh_epochs()
    return server


async def called(home: House, path: str = "/mcp/desk", tool: str = "greet", user: str = "admin", capabilities: Any = None) -> Any:
    return await ask(home, "tools/call", {"name": tool, "arguments": {}}, user, capabilities, path=path)


async def task_of(home: House, path: str = "/mcp/desk", tool: str = "greet", user: str = "admin", capabilities: Any = None) -> str:
    result = (await called(home, path, tool, user, capabilities))["result"]
    assert (result["resultType"], result["status"], result["ttlMs"], result["pollIntervalMs"]) == ("task", "working", 60000, 50), result
    task: str = result["taskId"]
    return task


async def shown(home: House, task: str, *states: str, path: str = "/mcp/desk", capabilities: Any = None) -> Any:
    """The task once it is in one of these states."""
    async with asyncio.timeout(60):
        while True:
            found = (await ask(home, "tasks/get", {"taskId": task}, capabilities=capabilities, path=path))["result"]
            if found["status"] in states:
                return found
            await asyncio.sleep(0.05)  # between two looks


@SQLITE
@pytest.mark.parametrize(("path", "tool", "uri"), [("/mcp/desk", "greet", "note://1"), ("/mcp", "desk_greet", "desk+note://1")])
async def test_a_newer_client_has_an_older_servers_task(open_home: House, path: str, tool: str, uri: str) -> None:
    server = await old_desk(open_home)
    task = await task_of(open_home, path, tool)
    assert task not in server.tasks
    asking = await shown(open_home, task, "input_required", path=path)
    ((key, question),) = asking["inputRequests"].items()
    assert (asking["taskId"], question["method"], question["params"]["message"]) == (task, "elicitation/create", "Who?")
    assert "own-" not in str(asking)
    again = await shown(open_home, task, "input_required", path=path)
    assert again["inputRequests"] == asking["inputRequests"] and server.results == 1  # waited for once
    for answer in (ADA, {"action": "accept", "content": {"name": "Eve"}}):  # the second comes too late
        ack = await ask(open_home, "tasks/update", {"taskId": task, "inputResponses": {key: answer, "other": ADA}}, path=path)
        assert ack["result"] == {"resultType": "complete"}
    done = await shown(open_home, task, "completed", path=path)
    assert (done["result"]["content"][0]["text"], done["result"]["content"][1]["uri"]) == ("hello Ada", uri)
    assert "own-" not in str(done) and task not in str(server.heard)
    assert len(server.able) == 1 and next(iter(server.able.values())) == {"elicitation": {}}  # one session, and nothing invented
    late = await ask(open_home, "tasks/cancel", {"taskId": task}, path=path)
    assert late["result"] == {"resultType": "complete"}


@SQLITE
async def test_what_a_client_cannot_be_asked_no_older_server_asks(open_home: House) -> None:
    server, takes = await old_desk(open_home), {"extensions": {TASKS: {}}}
    task = await task_of(open_home, capabilities=takes)
    assert (await shown(open_home, task, "completed", capabilities=takes))["result"]["content"][0]["text"] == "hello nobody"
    assert list(server.able.values()) == [{}]
    task = await task_of(open_home)
    await shown(open_home, task, "input_required")
    refused = await ask(open_home, "tasks/get", {"taskId": task}, capabilities=takes, path="/mcp/desk")
    assert (refused["error"]["code"], refused["error"]["data"]) == (
        -32021,
        {"requiredCapabilities": {"elicitation": {}}, "trace_id": TRACE},
    )


@SQLITE
@pytest.mark.parametrize("support", ["optional", "forbidden"])
async def test_a_client_that_takes_no_tasks_gets_none(open_home: House, support: str) -> None:
    await old_desk(open_home, support)
    assert (await called(open_home, capabilities={"elicitation": {}}))["result"]["content"][0]["text"] == "at once"
    if support == "forbidden":
        assert (await called(open_home))["result"]["content"][0]["text"] == "at once"


@SQLITE
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_the_gateway_waits_for_a_task_whose_client_takes_none(open_home: House, era: str) -> None:
    server = await old_desk(open_home, "required")
    if era == "modern":
        result = (await called(open_home, capabilities={"sampling": {}}))["result"]
        assert result["resultType"] == "complete"
    else:
        mine = {"mcp-session-id": await session(open_home)}
        result = (await post(open_home, "admin", document("tools/call", {"name": "greet", "arguments": {}}), mine)).json()["result"]
    assert result["content"][0]["text"] == "hello nobody" and "own-" not in str(result)
    methods = [message["method"] for message in server.heard if message.get("method", "").startswith("tasks/")]
    assert methods[-1] == "tasks/result" and set(methods[:-1]) == {"tasks/get"}


@SQLITE
async def test_what_such_a_task_asks_is_asked_of_its_client(open_home: House) -> None:
    await old_desk(open_home, "required")
    asked: list[str] = []

    async def elicited(_context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"name": "Ada"})

    for mode in ("2026-07-28", "legacy"):
        async with client_of(open_home, "admin", mode, "desk", elicitation_callback=elicited) as client:  # type: ignore[arg-type]  # two modes
            (greeting, _link) = (await client.call_tool("greet", {})).content
            assert getattr(greeting, "text", "") == "hello Ada"
    assert asked == ["Who?", "Who?"]


@SQLITE
async def test_such_a_task_ends_with_the_call_that_waits_for_it(open_home: House) -> None:
    server = await old_desk(open_home, "required")
    server.seed = {"status": "working"}
    body, headers = modern("tools/call", {"name": "greet", "arguments": {}}, {"sampling": {}})
    waiting = asyncio.create_task(_left(open_home, body, headers))
    await until(lambda: bool(server.tasks), every=0.05)
    assert [task["status"] for task in server.tasks.values()] == ["working"]
    waiting.cancel()
    await until(lambda: [task["status"] for task in server.tasks.values()] == ["cancelled"], every=0.05)


async def _left(home: House, body: Any, headers: dict[str, str]) -> None:
    async with stream(home, "admin", body, headers) as events:
        await events.next()


@SQLITE
async def test_a_task_that_is_ended_by_its_client_is_ended_at_the_older_server(open_home: House) -> None:
    server = await old_desk(open_home)
    task = await task_of(open_home)
    await shown(open_home, task, "input_required")
    assert (await ask(open_home, "tasks/cancel", {"taskId": task}, path="/mcp/desk"))["result"] == {"resultType": "complete"}
    assert [each["status"] for each in server.tasks.values()] == ["cancelled"]
    assert (await shown(open_home, task, "cancelled")).keys().isdisjoint({"result", "error", "inputRequests"})


@SQLITE
@pytest.mark.parametrize("failed", [True, False])
async def test_an_error_of_the_call_is_a_failure_and_what_a_tool_says_of_itself_a_result(open_home: House, failed: bool) -> None:
    server = await old_desk(open_home)
    tool_error: dict[str, Any] = {"result": {"content": [], "isError": True}}
    server.outcome = {"error": {"code": -32603, "message": "no stock of /srv/x"}} if failed else tool_error
    task = await task_of(open_home)
    (key,) = (await shown(open_home, task, "input_required"))["inputRequests"]
    await ask(open_home, "tasks/update", {"taskId": task, "inputResponses": {key: ADA}}, path="/mcp/desk")
    ended = await shown(open_home, task, "completed", "failed")
    if failed:
        assert (ended["status"], ended["error"]["code"]) == ("failed", -32603) and "/srv" not in str(ended)
    else:
        assert (ended["status"], ended["result"]) == ("completed", {"content": [], "isError": True})


# attack: another user's task, another path, the server's own id
@SQLITE
async def test_an_older_servers_task_is_its_callers_alone(open_home: House) -> None:
    server = await old_desk(open_home)
    task = await task_of(open_home, user="mel")
    (key,) = (await ask(open_home, "tasks/get", {"taskId": task}, "mel", path="/mcp/desk"))["result"]["inputRequests"]
    own, heard = next(iter(server.tasks)), len(server.heard)
    wrong = [
        await ask(open_home, "tasks/get", {"taskId": task}, "admin", path="/mcp/desk"),
        await ask(open_home, "tasks/get", {"taskId": own}, "mel", path="/mcp/desk"),
        await ask(open_home, "tasks/update", {"taskId": task, "inputResponses": {key: ADA}}, "admin", path="/mcp/desk"),
        await ask(open_home, "tasks/cancel", {"taskId": task}, "admin", path="/mcp"),
    ]
    assert {(answer["error"]["code"], answer["error"]["message"]) for answer in wrong} == {NO_SUCH}
    assert len(server.heard) == heard


@SQLITE
@pytest.mark.parametrize("seed", [{"taskId": 5}, {"status": "odd"}, {"createdAt": None}, {"ttl": "long"}])
async def test_what_is_no_task_is_the_servers_fault(open_home: House, seed: dict[str, Any]) -> None:
    server = await old_desk(open_home)
    server.seed = seed
    assert (await called(open_home))["error"]["code"] == -32015
    server.seed = {}
    task = await task_of(open_home)
    for each in server.tasks.values():
        each.update(seed)
    answer = await ask(open_home, "tasks/get", {"taskId": task}, path="/mcp/desk")
    assert answer["error"]["code"] == -32015


@SQLITE
async def test_one_person_has_so_many_results_waited_for_and_no_more(
    open_home: House, monkeypatch: pytest.MonkeyPatch
) -> None:  # attack PRO-12
    monkeypatch.setattr(older_server_tasks, "WAITERS_PER_HOLDER", 2)
    await old_desk(open_home)
    tasks = [await task_of(open_home) for _ in range(3)]
    seen = [await ask(open_home, "tasks/get", {"taskId": task}, path="/mcp/desk") for task in tasks]
    assert [("error" in answer) for answer in seen] == [False, False, True]
    large = {"action": "accept", "content": {"name": "x" * older_server_tasks.ANSWER_BYTES_MAX}}
    (key,) = seen[0]["result"]["inputRequests"]
    refused = await ask(open_home, "tasks/update", {"taskId": tasks[0], "inputResponses": {key: large}}, path="/mcp/desk")
    assert refused["error"]["code"] == -32602
    await ask(open_home, "tasks/cancel", {"taskId": tasks[0]}, path="/mcp/desk")
    await shown(open_home, tasks[2], "input_required")  # there is room again


async def test_what_one_process_is_asked_is_shown_and_answered_at_another(tmp_path: Path, postgres_url: str) -> None:
    async with house(tmp_path / "a", postgres_url) as here:
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "keys").symlink_to(tmp_path / "a" / "keys")
        async with house(tmp_path / "b", postgres_url) as there:
            server = await old_desk(here, server=OlderTaskServer(bound=False))
            await there.gateway.registry.reload()
            task = await task_of(here)
            asking = await shown(here, task, "input_required")
            assert (await shown(there, task, "input_required"))["inputRequests"] == asking["inputRequests"]
            assert server.results == 1
            (key,) = asking["inputRequests"]
            await ask(there, "tasks/update", {"taskId": task, "inputResponses": {key: ADA}}, path="/mcp/desk")
            done = await shown(here, task, "completed")
            assert done["result"]["content"][0]["text"] == "hello Ada"


@SQLITE
async def test_an_older_client_and_an_older_server_understand_each_other_under_our_ids(open_home: House) -> None:
    server = await old_desk(open_home)
    mine = await session(open_home, capabilities={"elicitation": {}})
    made = await older(open_home, mine, "tools/call", {"name": "greet", "arguments": {}, "task": {"ttl": 1000}}, path="/mcp/desk")
    seed = made["result"]["task"]
    task, named = seed["taskId"], {"taskId": seed["taskId"]}
    assert (seed["status"], seed["ttl"], seed["pollInterval"]) == ("working", 60000, 50) and task not in server.tasks
    assert next(each for each in server.heard if each.get("method") == "tools/call")["params"]["task"] == {"ttl": 1000}
    seen = (await older(open_home, mine, "tasks/get", named, path="/mcp/desk"))["result"]
    assert (seen["taskId"], seen["status"]) == (task, "input_required")
    async with stream(open_home, "admin", document("tasks/result", named), {"mcp-session-id": mine}) as events:
        async with asyncio.timeout(60):
            while "method" not in (question := await events.next()):
                pass
            assert question["method"] == "elicitation/create"
            assert question["params"]["_meta"]["io.modelcontextprotocol/related-task"] == named
            answer = {"jsonrpc": "2.0", "id": question["id"], "result": ADA}
            sent = {"authorization": f"Bearer {open_home.token('admin')}", "mcp-session-id": mine}
            assert (await open_home.http.post("/mcp/desk", json=answer, headers=sent)).status_code == 202
            told = await events.first_of("notifications/tasks/status")
            assert (told["taskId"], told["status"]) == (task, "completed")
            result = (await events.next())["result"]
    assert result["content"][0]["text"] == "hello Ada" and result["_meta"]["io.modelcontextprotocol/related-task"] == named
    assert (await older(open_home, mine, "tasks/cancel", named, path="/mcp/desk"))["error"]["code"] == -32602
    other = await session(open_home, "mel")
    foreign = await older(open_home, other, "tasks/result", named, "mel", path="/mcp/desk")
    assert (foreign["error"]["code"], foreign["error"]["message"]) == NO_SUCH


# attack LOG-02
@SQLITE
async def test_what_a_failed_task_tells_of_its_server_reaches_no_older_client_either(open_home: House) -> None:
    server, mine = await old_desk(open_home), await session(open_home)
    made = await older(open_home, mine, "tools/call", {"name": "greet", "arguments": {}, "task": {}}, path="/mcp/desk")
    (own,) = server.tasks
    for words, member in (("out of stock", {"statusMessage": "out of stock"}), ("/srv/desk/tools.py is missing", {})):
        server.tasks[own] |= {"status": "failed", "statusMessage": words}
        seen = (await older(open_home, mine, "tasks/get", {"taskId": made["result"]["task"]["taskId"]}, path="/mcp/desk"))["result"]
        assert seen["status"] == "failed" and {name: seen[name] for name in ("statusMessage",) if name in seen} == member


@SQLITE
async def test_an_older_client_waits_for_a_newer_servers_result_and_is_asked_meanwhile(open_home: House) -> None:
    server = TaskServer()
    url = await open_home.stack.enter_async_context(serving(server, grace=0))
    await open_home.server("desk", "greet", url=url)
    mine = await session(open_home, capabilities={"elicitation": {}})
    made = await older(open_home, mine, "tools/call", {"name": "greet", "arguments": {}, "task": {}}, path="/mcp/desk")
    named = {"taskId": made["result"]["task"]["taskId"]}
    async with stream(open_home, "admin", document("tasks/result", named), {"mcp-session-id": mine}) as events:
        async with asyncio.timeout(60):
            while "method" not in (question := await events.next()):
                pass
            assert question["params"]["_meta"]["io.modelcontextprotocol/related-task"] == named
            answer = {"jsonrpc": "2.0", "id": question["id"], "result": ADA}
            sent = {"authorization": f"Bearer {open_home.token('admin')}", "mcp-session-id": mine}
            assert (await open_home.http.post("/mcp/desk", json=answer, headers=sent)).status_code == 202
            result = (await events.next())["result"]
    assert result["content"][0]["text"] == "hello Ada" and result["_meta"]["io.modelcontextprotocol/related-task"] == named


@SQLITE
@pytest.mark.parametrize("era", ["legacy", "modern"])
async def test_a_listener_is_told_of_tasks_of_servers_too(open_home: House, era: str) -> None:
    if era == "legacy":
        await old_desk(open_home)
        task = await task_of(open_home)
    else:
        url = await open_home.stack.enter_async_context(serving(TaskServer(), grace=0))
        await open_home.server("desk", "greet", url=url)
        task = (await called(open_home))["result"]["taskId"]
    body, headers = modern("subscriptions/listen", {"notifications": {"taskIds": [task, "mt_unknown"]}}, TAKES)
    async with stream(open_home, "admin", body, headers) as events, asyncio.timeout(60):
        granted = await events.first_of("notifications/subscriptions/acknowledged")
        assert granted["notifications"]["taskIds"] == [task]
        asking = await events.first_of("notifications/tasks")
        while asking["status"] != "input_required":
            asking = await events.first_of("notifications/tasks")
        (key,) = asking["inputRequests"]
        await ask(open_home, "tasks/update", {"taskId": task, "inputResponses": {key: ADA}}, path="/mcp/desk")
        done = asking
        while done["status"] != "completed":
            done = await events.first_of("notifications/tasks")
    assert done["taskId"] == task and done["result"]["content"][0]["text"] == "hello Ada"


@SQLITE
async def test_what_a_process_asked_that_is_no_more_is_asked_again(open_home: House) -> None:
    await old_desk(open_home)
    task = await task_of(open_home)
    kept = ServerTaskStore(open_home.gateway.database, lambda: 0)
    await kept.write_question(ServerTask(task, "desk", "greet", ""), "q_gone", "p_gone", InputRequest("elicitation/create"))
    ((key, question),) = (await shown(open_home, task, "input_required"))["inputRequests"].items()
    assert key != "q_gone" and question["params"]["message"] == "Who?"
