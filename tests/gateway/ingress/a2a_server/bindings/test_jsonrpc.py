"""What only JSON-RPC has: two versions at one address, envelopes, and the names of the .proto file."""

import json
from typing import Any

import pytest

from tests.fakes.house import CallbackAgent, House
from tests.fakes.waiting import until

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
OLD = {"message": {"kind": "message", "messageId": "m1", "role": "user", "parts": [{"kind": "text", "text": "hello"}]}}
NEW = {"message": {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hello"}]}}


async def called(home: House, method: str, params: Any, query: str = "", **headers: str) -> Any:
    return (await home.rpc(f"/agents/sales{query}", home.token("alice"), method, params, **headers)).json()


@pytest.mark.parametrize(
    ("header", "query", "version"),
    [
        ("1.0", "", "1.0"),
        ("1.0.1", "", "1.0"),
        (" 1.0 ", "", "1.0"),
        ("0.3", "", "0.3"),
        ("0.3.0", "", "0.3"),
        (None, "1.0", "1.0"),
        (None, "0.3", "0.3"),
        ("", "0.3", "0.3"),
        ("0.3", "1.0", "0.3"),
        ("1.0", "0.3", "1.0"),
        (None, "", ""),
        ("", "", ""),
    ],
)
async def test_a_version_is_asked_for_in_the_header_or_else_the_query(home: House, header: str | None, query: str, version: str) -> None:
    await home.agent(CallbackAgent("sales"))
    headers = {} if header is None else {"A2A-Version": header}
    asked = f"?A2A-Version={query}" if query else ""
    new = await called(home, "SendMessage", NEW, asked, **headers)
    old = await called(home, "message/send", OLD, asked, **headers)
    if version in ("1.0", ""):
        assert new["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    else:
        assert new["error"]["code"] == -32601
    if version in ("0.3", ""):
        assert (old["result"]["kind"], old["result"]["status"]["state"]) == ("task", "completed")
    else:
        assert old["error"]["code"] == -32601


async def test_a_call_in_0_3_waits_unless_it_is_told_not_to(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    for blocking, state in ((None, "completed"), (True, "completed"), (False, "submitted")):
        configuration = {} if blocking is None else {"configuration": {"blocking": blocking}}
        answer = await called(home, "message/send", {**OLD, **configuration})
        assert answer["result"]["status"]["state"] == state, blocking


async def test_members_may_have_the_names_of_the_proto_file(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    message = {"message_id": "m1", "role": "ROLE_USER", "parts": [{"text": "hi", "media_type": "text/plain"}], "context_id": "c_1"}
    sent = (await called(home, "SendMessage", {"message": message, "configuration": {"history_length": 0}}))["result"]["task"]
    assert sent["contextId"] == "c_1" and "history" not in sent
    one = (await called(home, "GetTask", {"id": sent["id"], "history_length": 1}))["result"]
    assert one["history"][0]["parts"] == [{"text": "hi", "mediaType": "text/plain"}]
    listed = (await called(home, "ListTasks", {"context_id": "c_1", "page_size": 1, "include_artifacts": True}))["result"]
    assert (listed["totalSize"], listed["tasks"][0]["artifacts"][0]["artifactId"]) == (1, "answer")
    data = {"message": {**NEW["message"], "parts": [{"data": {"snake_case": 1}}], "metadata": {"snake_case": {"a_b": 2}}}}
    kept = (await called(home, "SendMessage", data))["result"]["task"]["history"][0]
    assert (kept["parts"], kept["metadata"]) == ([{"data": {"snake_case": 1}}], {"snake_case": {"a_b": 2}})


@pytest.mark.parametrize(
    ("envelope", "code", "told"),
    [
        ({"jsonrpc": "1.0", "id": 5, "method": "GetTask", "params": {}}, -32600, 5),
        ({"id": "x", "method": "GetTask", "params": {}}, -32600, "x"),
        ({"jsonrpc": "2.0", "id": 1, "params": {}}, -32600, 1),
        ({"jsonrpc": "2.0", "id": 1, "method": 7}, -32600, 1),
        ({"jsonrpc": "2.0", "id": {}, "method": "GetTask"}, -32600, None),
        ({"jsonrpc": "2.0", "id": True, "method": "GetTask"}, -32600, None),
        ([], -32600, None),
        ({"jsonrpc": "2.0", "id": None, "method": "Nonsense"}, -32601, None),
        ({"jsonrpc": "2.0", "id": None, "method": "message/send", "params": {"": "x"}}, -32602, None),
        ({"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": []}, -32602, 1),
    ],
)
async def test_an_envelope_that_is_none(home: House, envelope: Any, code: int, told: Any) -> None:
    await home.agent(CallbackAgent("sales"))
    headers = {"authorization": f"Bearer {home.token('alice')}", "content-type": "application/json"}
    answer = await home.http.post("/agents/sales", content=json.dumps(envelope), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"], answer.json()["id"]) == (200, code, told)


async def test_webhooks_of_0_3_need_no_id(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    task = (await called(home, "message/send", OLD))["result"]["id"]
    for port in (59998, 59999):
        params = {"taskId": task, "pushNotificationConfig": {"url": f"http://127.0.0.1:{port}/", "authentication": {"schemes": ["Bearer"]}}}
        made = (await called(home, "tasks/pushNotificationConfig/set", params))["result"]
        assert made["taskId"] == made["pushNotificationConfig"]["id"] == task
    assert (await called(home, "tasks/pushNotificationConfig/get", {"id": task}))["result"] == made
    assert (await called(home, "tasks/pushNotificationConfig/list", {"id": task}))["result"] == [made]
    gone = await called(home, "tasks/pushNotificationConfig/delete", {"id": task, "pushNotificationConfigId": task})
    assert gone["result"] is None
    assert (await called(home, "tasks/pushNotificationConfig/get", {"id": task}))["error"]["code"] == -32001


async def test_a_get_is_no_call(home: House) -> None:
    answer = await home.http.get("/agents/sales", headers={"authorization": f"Bearer {home.token('alice')}"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def noted(home: House, method: str, params: Any) -> tuple[int, bytes]:
    """What a notification, which has no id, is answered."""
    headers = {"authorization": f"Bearer {home.token('alice')}", "A2A-Version": "1.0"}
    answer = await home.http.post("/agents/sales", json={"jsonrpc": "2.0", "method": method, "params": params}, headers=headers)
    return answer.status_code, answer.content


@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage"])
async def test_a_notification_is_acted_on_and_not_answered(home: House, method: str) -> None:
    agent = await home.agent(CallbackAgent("sales"))
    assert await noted(home, method, NEW) == (202, b"")
    await until(lambda: len(agent.requests) == 1)


@pytest.mark.parametrize(("method", "params"), [("Nonsense", {}), ("GetTask", {"id": "t_none"}), ("SendMessage", {})])
async def test_a_notification_gets_no_error_either(home: House, method: str, params: Any) -> None:
    await home.agent(CallbackAgent("sales"))
    assert await noted(home, method, params) == (202, b"")


@pytest.mark.parametrize(
    "document", [{"jsonrpc": "2.0", "params": {}}, {"jsonrpc": "2.0", "method": 1}, {"jsonrpc": "1", "method": "GetTask"}]
)
async def test_what_is_no_request_object_is_no_notification(home: House, document: Any) -> None:
    headers = {"authorization": f"Bearer {home.token('alice')}", "A2A-Version": "1.0"}
    answer = await home.http.post("/agents/sales", json=document, headers=headers)
    assert (answer.status_code, answer.json()["id"], answer.json()["error"]["code"]) == (200, None, -32600)
