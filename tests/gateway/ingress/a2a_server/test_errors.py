"""What each door says of each error, by the table of A2A 1.0 s5.4 and s11.6: one body over bindings and versions."""

import json
from typing import Any

import pytest

from gateway.ingress.a2a_server.bindings.jsonrpc import JsonRpcEndpoint
from gateway.ingress.a2a_server.bindings.rest import RestEndpoint
from gateway.ingress.a2a_server.operations import OperationDependencies, Operations
from gateway.ingress.http.request_trace import RequestTrace
from gateway.tasks.pages import TaskPages
from gateway.tasks.reader import TaskReader
from tests.fakes.a2a_agents import a2a_agent, serving
from tests.fakes.a2a_doors import DOORS, Said, ask, message_of, result, said
from tests.fakes.house import CallbackAgent, House

pytestmark = [pytest.mark.parametrize("database_url", ["sqlite"], indirect=True), pytest.mark.parametrize("door", DOORS)]
REQUIRED = "https://example.org/ext/1"
PRECONDITION = "FAILED_PRECONDITION"


def expected(door: str, code: int, status: int, rpc: str, reason: str) -> Said:
    """JSON-RPC's errors ride on 200, unless HTTP itself has to act."""
    if door.startswith("rest"):
        return Said(status, rpc, reason)
    return Said(status if code in (-32011, -32016) else 200, code, reason)


async def asking(home: House, door: str) -> str:
    """A task of the scripted agent that waits for an answer."""
    url = await home.stack.enter_async_context(serving(a2a_agent()))
    await home.registered("sales", url, facts={"version": "1.0", "streaming": True})
    return str(result(door, await ask(home, door, "send", {"message": message_of(door, "ask")}))["id"])


async def test_an_unknown_task(home: House, door: str) -> None:
    await home.agent(CallbackAgent("sales"))
    for act in ("get", "cancel", "subscribe"):
        answer = await ask(home, door, act, {"id": "t_unknown"})
        assert said(door, answer) == expected(door, -32001, 404, "NOT_FOUND", "TASK_NOT_FOUND"), act
    answer = await ask(home, door, "send", {"message": message_of(door, "go on", taskId="t_unknown")})
    assert said(door, answer) == expected(door, -32001, 404, "NOT_FOUND", "TASK_NOT_FOUND")


async def test_a_task_of_somebody_else_is_unknown(home: House, door: str) -> None:
    task = await asking(home, door)
    for act in ("get", "cancel", "subscribe"):
        answer = await ask(home, door, act, {"id": task}, user="bob")
        assert said(door, answer) == expected(door, -32001, 404, "NOT_FOUND", "TASK_NOT_FOUND"), act


async def test_a_task_that_is_over(home: House, door: str) -> None:
    task = await asking(home, door)
    assert (await ask(home, door, "cancel", {"id": task})).status_code == 200
    answer = await ask(home, door, "cancel", {"id": task})
    assert said(door, answer) == expected(door, -32002, 400, PRECONDITION, "TASK_NOT_CANCELABLE")
    for act, params in (("subscribe", {"id": task}), ("send", {"message": message_of(door, "more", taskId=task)})):
        assert said(door, await ask(home, door, act, params)) == expected(door, -32004, 400, PRECONDITION, "UNSUPPORTED_OPERATION"), act


async def test_a_body_that_is_no_json(home: House, door: str) -> None:
    agent = await home.agent(CallbackAgent("sales"))
    answer = await ask(home, door, "send", {}, headers={"content-type": "text/plain"}, body="hello")
    assert said(door, answer) == expected(door, -32005, 415, "INVALID_ARGUMENT", "CONTENT_TYPE_NOT_SUPPORTED")
    answer = await ask(home, door, "send", {}, body="{")
    assert said(door, answer) == expected(door, -32700, 400, "INVALID_ARGUMENT", "BAD_JSON")
    assert agent.requests == []


async def test_params_that_are_wrong(home: House, door: str) -> None:
    agent = await home.agent(CallbackAgent("sales"))
    wrong: list[Any] = [
        {},
        {"message": 5},
        {"message": {**message_of(door, "x"), "messageId": ""}},
        {"message": {name: value for name, value in message_of(door, "x").items() if name != "role"}},
        {"message": {**message_of(door, "x"), "parts": [], "content": []}},
        {"message": message_of(door, "x"), "configuration": {"historyLength": -1}},
    ]
    for params in wrong:
        answer = await ask(home, door, "send", params)
        assert said(door, answer) == expected(door, -32602, 400, "INVALID_ARGUMENT", "BAD_REQUEST"), params
    for length in ("one", "-1"):
        answer = await ask(home, door, "get", {"id": "t_1", "historyLength": length})
        assert said(door, answer) == expected(door, -32602, 400, "INVALID_ARGUMENT", "BAD_REQUEST"), length
    assert agent.requests == []


async def test_a_version_that_is_not_served(home: House, door: str) -> None:
    await home.agent(CallbackAgent("sales"))
    answer = await ask(home, door, "get", {"id": "t_1"}, headers={"A2A-Version": "1.7"})
    assert said(door, answer) == expected(door, -32009, 400, PRECONDITION, "VERSION_NOT_SUPPORTED")


async def test_an_extension_that_the_agent_requires(home: House, door: str) -> None:
    agent = CallbackAgent("sales")
    url = await home.stack.enter_async_context(serving(agent))
    extensions = [{"uri": REQUIRED, "required": True}, {"uri": "https://example.org/ext/2"}]
    await home.registered("sales", url, capabilities={"extensions": extensions})
    params = {"message": message_of(door, "hello")}
    for act in ("send", "stream"):
        answer = await ask(home, door, act, params)
        assert said(door, answer) == expected(door, -32008, 400, PRECONDITION, "EXTENSION_SUPPORT_REQUIRED"), act
    assert agent.requests == []
    given = await ask(home, door, "send", params, headers={"A2A-Extensions": f"{REQUIRED}, https://example.org/unknown"})
    assert (given.status_code, given.headers["a2a-extensions"]) == (200, REQUIRED)
    assert agent.headers[0]["a2a-extensions"] == REQUIRED


async def test_an_agent_that_is_unknown_or_may_not_be_known(home: House, door: str) -> None:
    await home.agent(CallbackAgent("sales"))
    params = {"message": message_of(door, "hello")}
    for user, agent in (("alice", "nobody"), ("nora", "sales"), ("nora", "nobody")):
        for act in ("send", "stream", "card"):
            answer = await ask(home, door, act, params if act != "card" else {}, user=user, agent=agent)
            assert said(door, answer) == expected(door, -32011, 404, "NOT_FOUND", "UNKNOWN"), (user, agent, act)


async def test_a_token_that_is_none(home: House, door: str) -> None:
    await home.agent(CallbackAgent("sales"))
    answer = await ask(home, door, "get", {"id": "t_1"}, token="none")
    assert said(door, answer) == expected(door, -32016, 401, "UNAUTHENTICATED", "UNAUTHENTICATED")
    assert answer.headers["www-authenticate"].startswith("Bearer ")


async def test_what_no_card_declares(home: House, door: str) -> None:
    """A2A 1.0 s3.3.4, of a gateway without push notifications and extended cards."""
    await home.agent(CallbackAgent("sales"))
    gateway, authentication = home.gateway, home.app._authentication  # the parts of the door, joined otherwise
    bare = Operations(gateway.calls.agents, OperationDependencies(TaskReader(gateway.stores.tasks), TaskPages(gateway.database)))
    kind = JsonRpcEndpoint if door.startswith("jsonrpc") else RestEndpoint

    async def app(scope: Any, receive: Any, send: Any) -> None:
        visits = home.app._request_traces
        visit: RequestTrace = visits.begin("a2a", "test", "")
        await kind(authentication, bare, 1 << 20)(scope, receive, send, "sales", visit)

    home.http._transport.app = app  # type: ignore[attr-defined]  # the client has no other way to change it
    answer = await ask(home, door, "card", {})
    assert said(door, answer) == expected(door, -32004, 400, PRECONDITION, "UNSUPPORTED_OPERATION")
    inline = {"pushNotificationConfig": {"url": "https://example.org/hook"}}
    inline |= {"taskPushNotificationConfig": inline["pushNotificationConfig"], "pushNotification": inline["pushNotificationConfig"]}
    answer = await ask(home, door, "send", {"message": message_of(door, "hello"), "configuration": inline})
    assert said(door, answer) == expected(door, -32003, 400, PRECONDITION, "PUSH_NOTIFICATION_NOT_SUPPORTED")


async def test_a_stranger_s_text_is_not_told(home: House, door: str) -> None:
    await home.agent(CallbackAgent("sales"))
    answer = await ask(home, door, "get", {"id": "t_<script>"})
    assert "<script>" not in json.dumps(answer.json())
