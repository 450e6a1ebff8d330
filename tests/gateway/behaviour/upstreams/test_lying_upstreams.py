"""Agents and servers that hang, die, lie or shout: a typed failure inside the deadline, none of their words, and others go on."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.ingress.mcp_server.protocol.errors import TRACE_KEY
from gateway.tasks.turns.transitions import ERROR_METADATA
from registry.cards.card import Family, McpTool, RegistrationStatus
from registry.rows import Candidate
from tests.fakes.house import TRACE, CallbackAgent, House
from tests.fakes.upstream import Upstream, answer

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
SECRET = "the-upstreams-own-words"
JSON = "Content-Type: application/json"
SSE = "Content-Type: text/event-stream"
Handler = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def said(body: bytes | str, status: str = "200 OK", *headers: str) -> Handler:
    raw = body.encode() if isinstance(body, str) else body

    async def handler(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(raw, status, *(headers or (JSON,))))

    return handler


async def hangs(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hangs_within(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
    await writer.drain()
    await asyncio.Event().wait()


async def dies(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def dies_within(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"jsonrpc":"2.0",')
    await writer.drain()
    writer.transport.abort()


async def floods(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    while not writer.is_closing():
        writer.write(chunk)
        await writer.drain()


LIES: dict[str, Handler] = {
    "hangs": hangs,
    "hangs within": hangs_within,
    "dies": dies,
    "dies within": dies_within,
    "floods": floods,
    "no HTTP": said(b""),
    "HTML": said(f"<html>{SECRET}</html>", "200 OK", "Content-Type: text/html"),
    "an error page": said(f"<h1>{SECRET}</h1>", "500 Internal Server Error", "Content-Type: text/html"),
    "a bad gateway": said(SECRET, "502 Bad Gateway"),
    "a login": said(SECRET, "401 Unauthorized", f'WWW-Authenticate: Bearer realm="{SECRET}"'),
    "a redirect": said("", "307 Temporary Redirect", f"Location: http://127.0.0.1:9/{SECRET}"),
    "nothing": said(""),
    "half": said('{"jsonrpc":"2.0","id":1,'),
    "no JSON-RPC": said(json.dumps({"error": SECRET})),
    "a list": said("[]"),
    "NaN": said('{"jsonrpc":"2.0","id":1,"result":NaN}'),
    "bad UTF-8": said(b'{"jsonrpc":"2.0","id":1,"result":{"x":"\xff"}}'),
    "another id": said(
        '{"jsonrpc":"2.0","id":"other","result":{"task":{"id":"t","contextId":"c","status":{"state":"TASK_STATE_COMPLETED"}},"content":[]}}'
    ),
    "an error": said(json.dumps({"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": SECRET, "data": {"trace": SECRET}}})),
    "an error of no kind": said(json.dumps({"jsonrpc": "2.0", "id": 1, "error": SECRET})),
    "100,000 levels": said('{"jsonrpc":"2.0","id":1,"result":' + "[" * 100_000 + "]" * 100_000 + "}"),
    "an empty stream": said("", "200 OK", SSE),
    "a stream of rubbish": said(f"data: {SECRET}\n\n", "200 OK", SSE),
    "a stream that breaks off": said('data: {"jsonrpc":"2.0"', "200 OK", SSE),
}


async def lying(home: House, lie: Handler, name: str = "liar", streaming: bool = True, seconds: float = 1) -> Upstream:
    """An agent and a server behind one address, each with so long to answer in."""
    upstream = await home.stack.enter_async_context(Upstream(lie))
    await home.registered(name, upstream.url, upstream={"timeout": seconds}, facts={"interface": upstream.url, "streaming": streaming})
    entry = Candidate(
        tenant="default",
        name=f"{name}-tools",
        family=Family.SERVER,
        kind="mcp",
        url=f"{upstream.url}/mcp",
        owner="operator",
        status=RegistrationStatus.ACTIVE,
        facts={"era": "modern"},
        upstream={"timeout": seconds},
        tools=(McpTool("steal", {"name": "steal", "inputSchema": {"type": "object"}}),),
    )
    await home.gateway.registry.add(entry)
    await home.gateway.database.refresh_epochs()
    return upstream


async def for_each_lie(home: House, prove: Callable[[str], Awaitable[None]]) -> None:
    """All of them at the same time, so that none waits for another."""
    names = {f"liar-{number}": what for number, what in enumerate(LIES)}
    for name, what in names.items():
        await lying(home, LIES[what], name)
    outcomes = await asyncio.gather(*(prove(name) for name in names), return_exceptions=True)
    wrong = {what: repr(outcome) for what, outcome in zip(LIES, outcomes, strict=True) if outcome is not None}
    assert wrong == {}


def ended(task: Any) -> None:
    """A task that failed, for a reason of ours."""
    assert task["status"]["state"] == "TASK_STATE_FAILED"
    assert task["status"]["message"]["parts"][0]["text"]
    assert SECRET not in json.dumps(task)


async def test_a_task_fails_with_a_reason_inside_its_deadline(home: House) -> None:
    token = home.token("alice")

    async def prove(name: str) -> None:
        task = (await home.send(token, name, "hello"))["result"]["task"]
        ended(task)
        assert (await home.send_get(token, name, task["id"]))["result"] == task
        shown = await home.http.get(f"/api/tasks/{task['id']}", headers={"authorization": f"Bearer {token}"})
        assert shown.json()["state"] == "TASK_STATE_FAILED" and SECRET not in shown.text

    async with asyncio.timeout(60):
        await for_each_lie(home, prove)


async def test_a_stream_ends_with_the_failure(home: House) -> None:
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}

    async def prove(name: str) -> None:
        sent = await home.rpc(
            f"/agents/{name}", home.token("alice"), "SendStreamingMessage", {"message": message}, **{"A2A-Version": "1.0"}
        )
        assert SECRET not in sent.text and sent.status_code == 200
        last = json.loads(sent.text.strip().rpartition("data: ")[2])["result"]["statusUpdate"]
        assert last["status"]["state"] == "TASK_STATE_FAILED"

    async with asyncio.timeout(60):
        await for_each_lie(home, prove)


async def test_a_tool_call_ends_with_a_typed_error(home: House) -> None:
    token = home.token("mel")

    async def prove(name: str) -> None:
        modern = await home.call(token, "/mcp", f"{name}-tools_steal", {})
        legacy = await home.rpc(f"/mcp/{name}-tools", token, "tools/call", {"name": "steal", "arguments": {}})
        for called in (modern, legacy):
            if LIES[list(LIES)[int(name.removeprefix("liar-"))]] is LIES["an error"]:  # JSON-RPC errors of servers are for models to read
                assert called.json()["error"] == {"code": -32000, "message": SECRET, "data": {"trace": SECRET, TRACE_KEY: TRACE}}
                continue
            assert (called.status_code, called.json()["error"]["code"]) == (200, -32015)
            assert SECRET not in called.text + str(called.headers)

    async with asyncio.timeout(60):
        await for_each_lie(home, prove)


FAILURES = {
    "hangs": "late",
    "hangs within": "late",
    "dies": "cut",
    "dies within": "cut",
    "an empty stream": "cut",
    "HTML": "invalid",
    "nothing": "invalid",
    "half": "invalid",
    "another id": "invalid",
    "no HTTP": "invalid",
}


@pytest.mark.parametrize("what", FAILURES)
async def test_an_error_of_mcp_says_how_the_server_failed(home: House, what: str) -> None:
    await lying(home, LIES[what])
    called = await home.call(home.token("mel"), "/mcp", "liar-tools_steal", {})
    data = called.json()["error"]["data"]
    assert (data["reason_id"], data["failure"]) == ("upstream", FAILURES[what])


async def test_a_server_that_can_not_be_reached_is_told_apart(home: House) -> None:
    upstream = await lying(home, hangs)
    await upstream.__aexit__(None, None, None)
    called = await home.call(home.token("mel"), "/mcp", "liar-tools_steal", {})
    assert called.json()["error"]["data"]["failure"] == "unreachable"


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
async def test_a_retry_after_of_the_upstream_reaches_the_caller(home: House, status: str) -> None:
    await lying(home, said(SECRET, status, "Retry-After: 77"))
    called = await home.call(home.token("mel"), "/mcp", "liar-tools_steal", {})
    data = called.json()["error"]["data"]
    assert (called.headers["retry-after"], data["retryAfter"], data["failure"]) == ("77", 77, "busy")
    message = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
    sent = await home.rpc("/agents/liar", home.token("alice"), "SendMessage", {"message": message}, **{"A2A-Version": "1.0"})
    failed = sent.json()["result"]["task"]
    ended(failed)
    assert (sent.headers["retry-after"], failed["status"]["message"]["metadata"][ERROR_METADATA]["retryAfter"]) == ("77", 77)
    read = await home.rpc("/agents/liar", home.token("alice"), "GetTask", {"id": failed["id"]}, **{"A2A-Version": "1.0"})
    assert "retry-after" not in read.headers  # it counts from the failure


async def test_an_agent_called_as_a_tool_is_an_error_result(home: House) -> None:
    async def prove(name: str) -> None:
        called = (await home.call(home.token("alice"), "/mcp", name, {"message": "hello"})).json()["result"]
        assert called["isError"] and called["structuredContent"]["state"] == "TASK_STATE_FAILED"
        assert SECRET not in json.dumps(called) and called["content"][0]["text"]

    async with asyncio.timeout(60):
        await for_each_lie(home, prove)


async def test_others_go_on_while_one_hangs(home: House) -> None:
    release = asyncio.Event()

    async def hangs_until_then(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.transport.abort()

    await lying(home, hangs_until_then, seconds=60)
    await home.agent(CallbackAgent("sales"))
    await home.server("inventory", "check")
    token = home.token("alice")
    stuck = [asyncio.create_task(home.send(token, "liar", "hello")) for _ in range(20)]
    stuck += [asyncio.create_task(home.call(home.token("mel"), "/mcp", "liar-tools_steal", {})) for _ in range(20)]
    for _ in range(10):
        assert (await home.send(token, "sales", "hello"))["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
        assert "result" in (await home.call(token, "/mcp", "inventory_check", {})).json()
    assert not any(one.done() for one in stuck)
    release.set()
    answers = await asyncio.gather(*stuck)
    for one in answers[:20]:
        ended(one["result"]["task"])
    assert {one.json()["error"]["code"] for one in answers[20:]} == {-32015}


async def test_an_agent_that_ends_another_task_than_ours_ends_nothing(home: House) -> None:
    task = {"id": "mine", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}

    async def handler(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(upstream.requests)
        shown = {"task": task} if number == 1 else {**task, "id": "theirs", "status": {"state": "TASK_STATE_COMPLETED"}}
        writer.write(answer(json.dumps({"jsonrpc": "2.0", "id": number, "result": shown}).encode(), "200 OK", JSON))

    upstream = await lying(home, handler, streaming=False)
    ended((await home.send(home.token("alice"), "liar", "hello"))["result"]["task"])
