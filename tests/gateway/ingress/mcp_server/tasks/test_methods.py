"""SEP-2663 on agents: what becomes a task, whose it is, what it asks, how it ends, and what clients without the extension get."""

import asyncio
from typing import Any

import pytest

from tests.fakes.house import TRACE, House
from tests.fakes.mcp_tasks import ENDED, SECONDS, TAKES, TASKS, Pace, ask, begun, jobs, seen
from tests.fakes.mcp_wire import modern, post, stream
from tests.fakes.waiting import until

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
YES = {"action": "accept", "content": {"confirm": True}}
ADA = {"action": "accept", "content": {"name": "Ada"}}


@pytest.fixture(autouse=True)
def pace(monkeypatch: pytest.MonkeyPatch) -> Pace:
    return Pace(monkeypatch)


def said(task: dict[str, Any]) -> str:
    text: str = task["result"]["content"][0]["text"]
    return text


async def test_a_long_call_is_a_task_that_is_there_before_it_is_told_of(open_home: House, pace: Pace) -> None:
    await jobs(open_home)
    made = await begun(open_home, "slow_compute", label="x")
    assert made.keys() == {"resultType", "taskId", "status", "createdAt", "lastUpdatedAt", "ttlMs", "pollIntervalMs"}
    assert (made["status"], made["ttlMs"]) == ("working", None) and isinstance(made["pollIntervalMs"], int)
    shown = (await ask(open_home, "tasks/get", {"taskId": made["taskId"]}))["result"]
    assert (shown["resultType"], shown["taskId"], shown["status"]) == ("complete", made["taskId"], "working")
    pace.finish()
    ended = await seen(open_home, made["taskId"], *ENDED)
    assert ended["status"] == "completed" and said(ended) == "computed x" and not ended["result"]["isError"]


async def test_a_quick_call_is_no_task_and_a_client_that_takes_none_waits(open_home: House, pace: Pace) -> None:
    await jobs(open_home)
    pace.patient()
    quick = await ask(open_home, "tools/call", {"name": "greet", "arguments": {"name": "Ada"}})
    assert quick["result"]["resultType"] == "complete" and said(quick) == "Hello, Ada!"
    pace.patient(False)
    waiting = asyncio.create_task(
        ask(open_home, "tools/call", {"name": "slow_compute", "arguments": {"label": "y"}}, capabilities={}),
    )
    await until(lambda: pace.under_way == 1)
    pace.finish()
    patient = await waiting
    assert patient["result"]["resultType"] == "complete" and said(patient) == "computed y"


async def test_what_the_agent_says_of_itself_is_a_result_and_what_breaks_is_an_error(open_home: House, pace: Pace) -> None:
    await jobs(open_home)
    failing, breaking = await begun(open_home, "failing_job"), await begun(open_home, "protocol_error_job")
    pace.finish()
    failed = await seen(open_home, failing["taskId"], *ENDED)
    assert failed["status"] == "completed" and failed["result"]["isError"] and "error" not in failed
    broke = await seen(open_home, breaking["taskId"], *ENDED)
    assert broke["status"] == "failed" and isinstance(broke["error"]["code"], int) and "result" not in broke


async def test_a_question_of_the_agent_waits_in_the_task_and_answers_go_on_with_it(open_home: House, pace: Pace) -> None:
    await jobs(open_home)
    task = (await begun(open_home, "multi_input"))["taskId"]
    pace.finish()
    asking = await seen(open_home, task, "input_required")
    name, sure = asking["inputRequests"]
    assert asking["inputRequests"][name]["params"]["requestedSchema"]["properties"] == {"name": {"type": "string"}}
    for wrong in ({"other": ADA}, {name: 5}, {name: {"action": "shrug"}}):
        assert (await ask(open_home, "tasks/update", {"taskId": task, "inputResponses": wrong}))["result"] == {"resultType": "complete"}
    assert (await seen(open_home, task, "input_required", *ENDED))["inputRequests"].keys() == {name, sure}
    await ask(open_home, "tasks/update", {"taskId": task, "inputResponses": {name: ADA}})
    assert (await seen(open_home, task, "input_required", *ENDED))["inputRequests"].keys() == {sure}
    other = {"action": "accept", "content": {"name": "Eve"}}  # the first answer counts
    await ask(open_home, "tasks/update", {"taskId": task, "inputResponses": {name: other, sure: YES}})
    ended = await seen(open_home, task, *ENDED)
    assert "Ada" in said(ended) and "Eve" not in said(ended) and "confirm" in said(ended)


async def test_what_is_asked_before_there_is_a_task_is_asked_by_the_call_itself(open_home: House, pace: Pace) -> None:
    await jobs(open_home)
    params: dict[str, Any] = {"name": "test_tool_with_task", "arguments": {}}
    pace.patient()
    first = (await ask(open_home, "tools/call", params))["result"]
    assert first["resultType"] == "input_required" and "taskId" not in first
    (key,) = first["inputRequests"]
    again = {**params, "inputResponses": {key: ADA}, "requestState": first["requestState"]}
    pace.patient(False)
    made = (await ask(open_home, "tools/call", again))["result"]
    assert made["resultType"] == "task" and "requestState" not in made
    repeated = (await ask(open_home, "tools/call", again))["result"]
    assert repeated["taskId"] == made["taskId"]
    pace.finish()
    assert "Ada" in said(await seen(open_home, made["taskId"], *ENDED))
    foreign = await ask(open_home, "tools/call", again, "mel")
    assert foreign["error"]["code"] == -32602


# attack: another user's, an unknown and a withdrawn task are the same
async def test_a_task_is_its_owners_alone_and_ruled_on_each_time(open_home: House) -> None:
    await jobs(open_home)
    task = (await begun(open_home, "slow_compute", user="mel"))["taskId"]
    requests: list[tuple[str, dict[str, Any]]] = [("tasks/get", {}), ("tasks/update", {"inputResponses": {}}), ("tasks/cancel", {})]
    for method, more in requests:
        foreign = await ask(open_home, method, {"taskId": task, **more})
        unknown = await ask(open_home, method, {"taskId": task[:-4] + "0000", **more})
        elsewhere = await ask(open_home, method, {"taskId": "mt_" + task[2:], **more}, "mel")
        assert foreign["error"] == unknown["error"] == elsewhere["error"] and foreign["error"]["code"] == -32602
    assert (await seen(open_home, task, "working", user="mel"))["taskId"] == task
    headers = {"authorization": f"Bearer {open_home.token('admin')}"}
    await open_home.http.post("/api/virtual-servers", json={"name": "few", "tools": ["jobs/greet"]}, headers=headers)
    outside = await ask(open_home, "tasks/get", {"taskId": task}, "mel", path="/mcp/virtual/few")
    assert outside["error"]["code"] == -32602  # the tool is none of that place
    narrow = open_home.token("mel", scope="tool:*")
    body, headers = modern("tasks/get", {"taskId": task}, TAKES)
    sent = {"authorization": f"Bearer {narrow}", "content-type": "application/json", **headers, "mcp-name": task}
    refused = await open_home.http.post("/mcp", json=body, headers=sent)
    assert refused.json()["error"]["code"] == -32602
    await ask(open_home, "tasks/cancel", {"taskId": task}, "mel")
    assert (await seen(open_home, task, *ENDED, user="mel"))["status"] == "cancelled"
    await open_home.gateway.registry.remove("default", "jobs")
    assert (await ask(open_home, "tasks/get", {"taskId": task}, "mel", path="/mcp"))["error"]["code"] == -32602


async def test_without_the_extension_there_are_no_tasks(open_home: House) -> None:
    await jobs(open_home)
    needed = {"requiredCapabilities": {"extensions": {TASKS: {}}}, "trace_id": TRACE}
    for method, params in (
        ("tasks/get", {"taskId": "t_1"}),
        ("tasks/update", {"taskId": "t_1", "inputResponses": {}}),
        ("tasks/cancel", {"taskId": "t_1"}),
        ("tools/call", {"name": "failing_job", "arguments": {}}),
        ("subscriptions/listen", {"notifications": {"taskIds": ["t_1"]}}),
    ):
        error = (await ask(open_home, method, params, capabilities={"elicitation": {}}))["error"]
        assert (error["code"], error["data"]) == (-32021, needed), method


async def test_a_header_that_names_another_task_is_refused_and_older_methods_are_gone(open_home: House) -> None:
    body, headers = modern("tasks/get", {"taskId": "t_1"}, TAKES)
    for name in ({"mcp-name": "t_2"}, {}):
        answer = await post(open_home, "admin", body, headers | name, "/mcp")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
    for method in ("tasks/result", "tasks/list"):
        answer = await post(open_home, "admin", *modern(method, {"taskId": "t_1"}, TAKES), "/mcp")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601)


async def test_questions_that_the_client_cannot_be_asked_are_not_shown(open_home: House, pace: Pace) -> None:
    await jobs(open_home)
    task = (await begun(open_home, "confirm_delete"))["taskId"]
    pace.finish()
    await seen(open_home, task, "input_required")
    error = (await ask(open_home, "tasks/get", {"taskId": task}, capabilities={"extensions": {TASKS: {}}}))["error"]
    assert (error["code"], error["data"]) == (-32021, {"requiredCapabilities": {"elicitation": {}}, "trace_id": TRACE})


async def test_two_that_answer_at_once_go_on_once(open_home: House, pace: Pace) -> None:
    await jobs(open_home)
    task = (await begun(open_home, "multi_input"))["taskId"]
    pace.finish()
    name, sure = (await seen(open_home, task, "input_required"))["inputRequests"]
    updates = [{name: ADA}, {sure: YES}, {name: ADA, sure: YES}]
    acks = await asyncio.gather(*(ask(open_home, "tasks/update", {"taskId": task, "inputResponses": each}) for each in updates))
    assert [ack["result"] for ack in acks] == [{"resultType": "complete"}] * 3
    assert (await seen(open_home, task, *ENDED))["status"] == "completed"


async def test_a_listener_is_told_of_each_change_of_its_own_tasks(open_home: House, pace: Pace) -> None:
    await jobs(open_home)
    foreign = (await begun(open_home, "slow_compute", user="mel"))["taskId"]
    mine = (await begun(open_home, "confirm_delete"))["taskId"]
    body, headers = modern("subscriptions/listen", {"notifications": {"taskIds": [mine, foreign, "t_none"]}}, TAKES)
    async with asyncio.timeout(SECONDS), stream(open_home, "admin", body, headers, "/mcp") as events:
        acknowledged = await events.next()
        assert acknowledged["params"]["notifications"] == {"taskIds": [mine]}
        told = [(await events.next())["params"]]
        pace.finish()
        while told[-1]["status"] != "input_required":
            told.append((await events.next())["params"])
        (key,) = told[-1]["inputRequests"]
        await ask(open_home, "tasks/update", {"taskId": mine, "inputResponses": {key: YES}})
        while told[-1]["status"] not in ENDED:
            told.append((await events.next())["params"])
    assert {each["taskId"] for each in told} == {mine} and {"io.modelcontextprotocol/subscriptionId"} == set(told[-1].pop("_meta"))
    states = [each["status"] for each in told]
    assert states[0] == "working" and "input_required" in states and states[-1] == "completed"
    shown = (await ask(open_home, "tasks/get", {"taskId": mine}))["result"]
    assert shown == {"resultType": "complete", **told[-1]}
