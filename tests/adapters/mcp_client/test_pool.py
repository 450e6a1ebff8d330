"""Claims about calls to MCP servers: both eras, sessions that belong to one person, and faults that are typed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
from msgspec.structs import replace
from starlette.responses import JSONResponse, Response, StreamingResponse

from adapters.contract import Call, UpstreamFault
from adapters.mcp_client.pool import McpPool, PoolLimits
from adapters.mcp_client.wire.messages import McpRefused, McpRequest
from adapters.upstream.egress import Egress, HttpResponse
from policies.delegation.chain import Delegation, Principal
from policies.delegation.permissions import ALL_PERMISSIONS
from policies.delegation.rulings import Act, Decision, Grant
from registry.cards.card import Family, Registration, RegistrationStatus
from tests.fakes.clock import Clock
from tests.fakes.mcp_servers import mcp_server, scripted_server
from tests.fakes.timeouts import LONG_TIMEOUTS

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "someone", "version": "1"},
}
EXPECT_RESULT = {"content": [{"type": "text", "text": "hi"}], "isError": False}


@pytest.fixture
async def egress() -> AsyncIterator[Egress]:
    egress = Egress(["127.0.0.1"])
    yield egress
    await egress.close()


@pytest.fixture
async def pool(egress: Egress) -> AsyncIterator[McpPool]:
    pool = McpPool(egress, asyncio.get_running_loop().time, initialize_seconds=LONG_TIMEOUTS.initialize_probe)
    yield pool
    await pool.close()


def call_of(url: str, era: str | dict[str, str], user: str = "alice", seconds: float = 60.0, **rest: Any) -> Call:
    act = Act("callTool", "Tool", "tools.echo", "tool:tools.echo", "tools")
    principal = Principal("acme", "https://idp", user)
    decision = Decision("d_1", 0, True, "allowed", principal.owner_key, (), (), act)
    target = Registration(
        tenant="acme",
        name="tools",
        family=Family.SERVER,
        kind="mcp",
        status=RegistrationStatus.ACTIVE,
        url=url,
        owner="operator",
        ceiling=("*",),
        delegation="none",
        upstream={},
        facts={"era": era} if isinstance(era, str) else era,
        client_id="",
        card=None,
        card_text="[]",
        tools=(),
        card_hash="",
        created=0,
        updated=0,
    )
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", **rest}
    return Call(Grant(decision, Delegation(principal, ALL_PERMISSIONS, 2e9)), target, asyncio.get_running_loop().time() + seconds, headers)


def request_of(name: str, modern: bool = True, request_id: int | str = 1, **arguments: Any) -> McpRequest:
    params: dict[str, Any] = {"name": name, "arguments": arguments}
    if modern:
        params["_meta"] = META
    raw = json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}).encode()
    return McpRequest(request_id, name, raw, json.dumps(params).encode(), modern)


def text(result: bytes) -> str:
    return str(json.loads(result)["content"][0]["text"])


async def fault_of(pool: McpPool, url: str, era: str = "modern", seconds: float = 10.0) -> UpstreamFault:
    with pytest.raises(UpstreamFault) as fault:
        await pool.call(call_of(url, era, seconds=seconds), request_of("echo", text="hi"))
    return fault.value


@pytest.mark.parametrize("era", ["modern", "legacy"])
@pytest.mark.parametrize("json_response", [True, False], ids=["json", "sse"])
async def test_the_era_and_the_tools_of_a_server_are_found(pool: McpPool, era: Any, json_response: bool) -> None:
    async with mcp_server(era, json_response) as (url, gate):
        found = await pool.probe(url, {})
    assert (found.era, found.protocol_version) == (era, {"modern": "2026-07-28", "legacy": "2025-11-25"}[era])
    assert [tool["name"] for tool in found.tools] == ["echo", "note", "fail"]
    assert gate.count("DELETE") == (era == "legacy")  # the session that was opened to look around is closed


@pytest.mark.parametrize("json_response", [True, False], ids=["json", "sse"])
@pytest.mark.parametrize("front", [True, False], ids=["modern-front", "legacy-front"])
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_call_crosses_from_either_era_to_either(pool: McpPool, era: Any, front: bool, json_response: bool) -> None:
    async with mcp_server(era, json_response) as (url, _):
        for request_id in (7, "a", 7):
            answer = await pool.call(call_of(url, era), request_of("echo", front, request_id, text="hé"))
            result = json.loads(answer.result)
            assert text(answer.result) == "hé"
            assert result.get("resultType") == ("complete" if front else None)


async def test_a_modern_server_gets_the_clients_bytes_and_the_routing_headers(pool: McpPool) -> None:
    bodies: list[dict[str, Any]] = []

    async def answer(request: dict[str, Any]) -> Response:
        bodies.append(request)
        return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "result": EXPECT_RESULT})

    async with mcp_server("modern") as (url, gate):
        await pool.call(call_of(url, "modern", authorization="Bearer theirs"), request_of("echo", text="hi"))
        _, headers = gate.requests[-1]
    assert {name: headers[name] for name in ("mcp-protocol-version", "mcp-method", "mcp-name", "authorization")} == {
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "echo",
        "authorization": "Bearer theirs",
    }
    assert headers["traceparent"].startswith("00-0af7")
    request = request_of("odd ✓\r\nx-evil: 1", text="hi")
    async with scripted_server(answer) as url:
        await pool.call(call_of(url, "modern"), request)
    assert bodies == [json.loads(request.raw)]


async def test_an_old_server_sees_nothing_of_the_modern_envelope(pool: McpPool) -> None:
    bodies: list[dict[str, Any]] = []

    async def answer(request: dict[str, Any]) -> Response:
        bodies.append(request)
        result: dict[str, Any] = EXPECT_RESULT
        if request.get("method") == "initialize":
            result = {"protocolVersion": "2025-03-26", "capabilities": {}, "serverInfo": {"name": "x", "version": "1"}}
        return JSONResponse({"jsonrpc": "2.0", "id": request.get("id"), "result": result}, 200 if "id" in request else 202)

    async with scripted_server(answer) as url:
        request = request_of("echo", True, "their-id", text="hi")
        params = json.loads(request.params)
        params["_meta"]["progressToken"] = 5
        assert text((await pool.call(call_of(url, "legacy"), replace(request, params=json.dumps(params).encode()))).result) == "hi"
    assert [body["method"] for body in bodies] == ["initialize", "notifications/initialized", "tools/call"]
    assert bodies[2]["params"] == {"name": "echo", "arguments": {"text": "hi"}, "_meta": {"progressToken": 5}}
    assert bodies[2]["id"] != "their-id"


async def test_two_owners_over_one_pool_never_share_a_session(pool: McpPool) -> None:  # attack TEN-01
    async with mcp_server("legacy") as (url, gate):

        async def note(user: str, words: str) -> list[str]:
            answer = await pool.call(call_of(url, "legacy", user), request_of("note", False, 1, text=words))
            return [part["text"] for part in json.loads(answer.result)["content"]]

        users = ["alice", "mallory"] * 10
        answers = await asyncio.gather(*(note(user, f"{user}-{index}") for index, user in enumerate(users)))
        for user, seen in zip(users, answers, strict=True):
            assert all(words.startswith(user) for words in seen)
        assert len(gate.sessions) == 2  # one each, although twenty calls found none open
        assert max(len(seen) for seen in answers) == 10


async def test_answers_to_equal_ids_reach_whoever_asked(pool: McpPool) -> None:
    async with mcp_server("legacy", json_response=False) as (url, _):
        answers = await asyncio.gather(
            *(pool.call(call_of(url, "legacy"), request_of("echo", False, 1, text=str(number))) for number in range(20))
        )
    assert [text(answer.result) for answer in answers] == [str(number) for number in range(20)]


async def test_a_lost_session_is_opened_again_once_and_the_call_succeeds(pool: McpPool) -> None:
    async with mcp_server("legacy") as (url, gate):
        call = call_of(url, "legacy")
        await pool.call(call, request_of("echo", text="hi"))
        gate.forgets = 1
        assert text((await pool.call(call, request_of("echo", text="again"))).result) == "again"
        assert len(gate.sessions) == 2
        gate.forgets = 9
        with pytest.raises(UpstreamFault):
            await pool.call(call, request_of("echo", text="never"))
        assert gate.forgets >= 6


async def test_an_idle_session_is_closed_and_a_busy_pool_makes_room(egress: Egress) -> None:
    clock = Clock(asyncio.get_running_loop().time())
    pool = McpPool(egress, clock, PoolLimits(sessions=2, idle=1800), initialize_seconds=LONG_TIMEOUTS.initialize_probe)
    async with mcp_server("legacy") as (url, gate):
        for user in ("alice", "bob", "carol"):
            await pool.call(call_of(url, "legacy", user, 100), request_of("echo", text="hi"))
        await pool.sweep()
        assert gate.count("DELETE") == 1  # alice had to make room
        clock.now += 1801
        await pool.sweep()
        assert gate.count("DELETE") == 3
        assert text((await pool.call(call_of(url, "legacy", "bob", 4000), request_of("echo", text="back"))).result) == "back"
        await pool.close()
        assert gate.count("DELETE") == 4


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_an_error_inside_the_tool_is_a_result(pool: McpPool, era: Any) -> None:
    async with mcp_server(era) as (url, _):
        assert json.loads((await pool.call(call_of(url, era), request_of("fail"))).result)["isError"] is True


@pytest.mark.parametrize(("code", "shown"), [(-32602, -32602), (-32601, -32601), (-32010, -32603), (-32042, -32603), (7, 7)])
@pytest.mark.parametrize("status", [200, 400])
async def test_a_json_rpc_error_is_a_refusal_without_the_servers_words(pool: McpPool, code: int, shown: int, status: int) -> None:
    async def answer(request: dict[str, Any]) -> Response:
        error = {"code": code, "message": "secret at /etc/x", "data": {"trace": "y"}}
        return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "error": error}, status)

    async with scripted_server(answer) as url:
        if status == 400 and code not in (-32601, -32602):
            assert "secret" not in (await fault_of(pool, url)).public
            return
        with pytest.raises(McpRefused) as refused:
            await pool.call(call_of(url, "modern"), request_of("echo", text="hi"))
    assert refused.value.code == shown and "secret" not in str(refused.value) and "secret" in refused.value.detail


def ok(request: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request.get("id"), "result": EXPECT_RESULT, **changes}


def sse(text: str) -> Response:
    return Response(text, media_type="text/event-stream")


BAD_ANSWERS: dict[str, Any] = {
    "garbage": lambda _: Response(b"\x00\xff{{{", media_type="application/json"),
    "html": lambda _: Response("<html>welcome</html>", media_type="text/html"),
    "empty": lambda _: Response(b""),
    "bad-utf8": lambda r: Response(json.dumps(ok(r)).encode().replace(b"hi", b"\xff\xfe"), media_type="application/json"),
    "deep": lambda r: Response(
        b'{"jsonrpc":"2.0","id":1,"result":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001, media_type="application/json"
    ),
    "wrong-id": lambda r: JSONResponse(ok(r, id=2)),
    "id-of-another-type": lambda r: JSONResponse(ok(r, id="1")),
    "no-id": lambda r: JSONResponse(ok(r, id=None)),
    "both": lambda r: JSONResponse(ok(r, error={"code": 1, "message": ""})),
    "neither": lambda r: JSONResponse({"jsonrpc": "2.0", "id": 1}),
    "result-no-object": lambda r: JSONResponse(ok(r, result=[1])),
    "version-1": lambda r: JSONResponse(ok(r, jsonrpc="1.0")),
    "batch": lambda r: JSONResponse([ok(r)]),
    "500": lambda _: Response("Traceback (most recent call last)", 500),
    "500-with-result": lambda r: JSONResponse(ok(r), 500),
    "401": lambda _: Response("", 401),
    "429": lambda _: Response("", 429),
    "redirect": lambda _: Response("", 307, {"location": "http://127.0.0.1:1/"}),
    "accepted": lambda _: Response("", 202),
    "too-large": lambda r: JSONResponse(ok(r, result={"x": "y" * 300_000})),
    "sse-cut": lambda r: sse('data: {"jsonrpc":"2.0","id":1,"resu'),
    "sse-empty": lambda _: sse(": nothing\n\n"),
    "sse-wrong-id": lambda r: sse(f"data: {json.dumps(ok(r, id=9))}\n\n"),
    "sse-garbage": lambda _: sse("data: hello\n\n"),
    "sse-asks-back": lambda _: sse('data: {"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}\n\n'),
    "sse-too-large": lambda _: sse(": " + "x" * 300_000 + "\n\n"),
}


@pytest.mark.parametrize("known", [False, True], ids=["first", "warm"])
@pytest.mark.parametrize("bad", BAD_ANSWERS)
async def test_a_bad_answer_is_a_typed_fault_without_the_servers_words(egress: Egress, bad: str, known: bool) -> None:
    script = [lambda r: JSONResponse(ok(r))] * known + [BAD_ANSWERS[bad]]

    async def answer(request: dict[str, Any]) -> Response:
        answer: Response = (script.pop(0) if len(script) > 1 else script[0])(request)
        return answer

    pool = McpPool(egress, asyncio.get_running_loop().time, PoolLimits(answer=200_000), initialize_seconds=LONG_TIMEOUTS.initialize_probe)
    async with scripted_server(answer) as url:
        if known:
            await pool.call(call_of(url, "modern"), request_of("echo", text="hi"))
        fault = await fault_of(pool, url)
    assert fault.public and not any(word in fault.public for word in ("Traceback", "welcome", "hello"))


async def test_events_before_the_answer_are_skipped_and_what_follows_is_not_awaited(pool: McpPool) -> None:
    async def answer(request: dict[str, Any]) -> Response:
        async def events() -> AsyncIterator[str]:
            yield ': ping\r\n\r\ndata: {"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}\r\n\r\n'
            yield f"event: message\ndata: {json.dumps(ok(request))}\n\n"
            await asyncio.Event().wait()

        return StreamingResponse(events(), media_type="text/event-stream")

    async with scripted_server(answer) as url:
        for _ in range(2):
            assert text((await pool.call(call_of(url, "modern"), request_of("echo", text="x"))).result) == "hi"


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_server_that_hangs_fails_the_call_in_time_and_others_go_on(pool: McpPool, era: Any) -> None:
    release = asyncio.Event()

    async def answer(request: dict[str, Any]) -> Response:
        await release.wait()
        return JSONResponse(ok(request))

    async with mcp_server("modern") as (good, _), scripted_server(answer) as bad:
        hanging = [asyncio.create_task(fault_of(pool, bad, era, 0.5)) for _ in range(5)]
        assert text((await pool.call(call_of(good, "modern"), request_of("echo", text="on"))).result) == "on"
        faults = await asyncio.gather(*hanging)
        assert all("in time" in fault.public for fault in faults)  # each of them, although the server never answered
        release.set()


async def test_a_deadline_that_has_passed_sends_nothing(pool: McpPool) -> None:
    async with mcp_server("modern") as (url, gate):
        await fault_of(pool, url, seconds=-1)
        assert not gate.requests


async def test_an_unreachable_server_is_a_fault_and_says_nothing_about_its_era(pool: McpPool) -> None:
    async with mcp_server("modern") as (url, _):
        pass
    with pytest.raises(UpstreamFault):
        await pool.probe(url, {})
    assert "reached" in (await fault_of(pool, url)).public


async def test_an_unfinished_result_does_not_reach_a_client_that_cannot_finish_it(pool: McpPool) -> None:
    async def answer(request: dict[str, Any]) -> Response:
        return JSONResponse(ok(request, result={"resultType": "input_required", "inputRequests": {}}))

    async with scripted_server(answer) as url:
        with pytest.raises(McpRefused):
            await pool.call(call_of(url, "modern"), request_of("echo", False, text="x"))
        assert b"input_required" in (await pool.call(call_of(url, "modern"), request_of("echo", text="x"))).result


class InstantEgress:
    """Answers at once: what is left is our own work."""

    status = 200
    headers: ClassVar[dict[str, str]] = {"content-type": "application/json"}

    async def read(self, limit: int) -> bytes:
        return json.dumps(ok({"id": 1})).encode()

    async def request(self, *_: Any, **__: Any) -> HttpResponse:
        return HttpResponse(200, self.headers, b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}')

    @asynccontextmanager
    async def stream(self, *_: Any, **__: Any) -> AsyncIterator["InstantEgress"]:
        yield self
