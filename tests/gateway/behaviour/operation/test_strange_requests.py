"""Requests as no proper client writes them, byte by byte over a real socket: wrong hosts and origins, odd paths, lying lengths."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.fakes.house import CallbackAgent, House

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'


@dataclass(frozen=True)
class Said:
    """What came back: 0 and nothing when the server just closed the connection."""

    status: int
    head: bytes
    body: bytes


async def say(home: House, *parts: bytes, wait: float = 60) -> Said:
    """Sends bytes as they are and reads until the server closes; for requests that say `Connection: close`, or are broken."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(home.url.rpartition(":")[2]))
    try:
        async with asyncio.timeout(wait):
            try:
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                answer = await reader.read()
            except ConnectionError:
                answer = b""
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return Said(int(head.split(b" ")[1]) if head else 0, head.lower(), body)


def head(home: House, first: str, *lines: str, host: str | None = None, user: str = "alice") -> bytes:
    ours = home.url.removeprefix("http://") if host is None else host
    fixed = [first, *([f"Host: {ours}"] if ours else []), f"Authorization: Bearer {home.token(user)}", "Connection: close", *lines]
    return "\r\n".join(fixed).encode() + b"\r\n\r\n"


def posted(home: House, path: str, body: bytes = PING, *lines: str, host: str | None = None) -> bytes:
    return head(home, f"POST {path} HTTP/1.1", f"Content-Length: {len(body)}", "Content-Type: application/json", *lines, host=host) + body


async def test_what_is_said_properly_is_answered(open_home: House) -> None:
    said = await say(open_home, posted(open_home, "/mcp"))
    assert (said.status, json.loads(said.body)["result"]) == (200, {})


# attack PRO-02, PRO-10
async def test_a_host_that_is_not_ours_is_misdirected(open_home: House) -> None:
    await open_home.agent(CallbackAgent("sales"))
    ours = open_home.url.removeprefix("http://")
    wrong = [
        "evil.test",
        f"{ours}.evil.test",
        f"evil.test:{ours.rpartition(':')[2]}",
        f"{ours}/admin?x",
        f"{ours}#",
        f"{ours}@evil.test",
        f"x@{ours}",
        "127.0.0.1",
        f"{ours},{ours}",
    ]
    paths = [
        "/mcp",
        "/agents/sales",
        "/api/tasks",
        "/oauth/token",
        "/oauth/revoke",
        "/.well-known/jwks.json",
        "/agents/sales/.well-known/agent-card.json",
        "/nothing",
    ]
    for path in paths:
        for host in wrong:
            said = await say(open_home, posted(open_home, path, host=host))
            assert said.status in (400, 421), (path, host)
    for host in ("localhost", "127.0.0.1"):
        assert (await say(open_home, posted(open_home, "/mcp", host=host + ":" + ours.rpartition(":")[2]))).status in (200, 421)


# attack PRO-02
async def test_two_hosts_or_none_are_refused(open_home: House) -> None:
    ours = open_home.url.removeprefix("http://")
    for path in ("/mcp", "/agents/sales", "/api/tasks", "/.well-known/jwks.json"):
        for second in (ours, "evil.test"):
            said = await say(open_home, posted(open_home, path, PING, f"Host: {second}"))
            assert said.status in (400, 0), (path, second)
        assert (await say(open_home, posted(open_home, path, host=""))).status in (400, 421)


# attack PRO-02
async def test_an_absolute_address_of_another_host_is_misdirected(open_home: House) -> None:
    ours = open_home.url.removeprefix("http://")
    for path in ("/mcp", "/agents/sales", "/api/tasks", "/.well-known/jwks.json"):
        foreign = (
            "http://evil.test",
            "https://evil.test:8443",
            f"http://{ours}@evil.test",
            f"http://evil.test@{ours}",
            "http://",
            "HTTP://evil.test",
        )
        for authority in (*foreign, f"http://{ours}.evil.test", f"http://evil.test#{ours}"):
            said = await say(open_home, posted(open_home, f"{authority}{path}", PING))
            assert said.status in (400, 421), (authority, path)
            assert b"evil.test" not in said.head + said.body
        assert (await say(open_home, posted(open_home, f"{open_home.url}{path}", PING))).status not in (400, 421), path
    for target in ("*", "evil.test:443", "evil.test"):
        assert (await say(open_home, posted(open_home, target, PING))).status in (400, 404, 421), target
    assert (await say(open_home, posted(open_home, f"{open_home.url}/mcp", PING, host="evil.test"))).status == 200  # the target counts
    twice = await say(open_home, posted(open_home, f"{open_home.url}/mcp", PING, f"Host: {ours}"))
    assert twice.status == 400


# attack PRO-02
async def test_forwarded_hosts_change_nothing(open_home: House) -> None:
    forged = [
        "X-Forwarded-Host: evil.test",
        "Forwarded: host=evil.test",
        "X-Forwarded-Proto: https",
        "X-Original-URL: /livez",
        "X-Rewrite-URL: /livez",
    ]
    said = await say(open_home, posted(open_home, "/mcp", PING, *forged))
    assert (said.status, json.loads(said.body)["id"]) == (200, 1)
    refused = await say(
        open_home, "\r\n".join(["GET /api/tasks HTTP/1.1", f"Host: {open_home.url[7:]}", *forged, "Connection: close", "", ""]).encode()
    )
    assert refused.status == 401 and open_home.url.encode() in refused.head and b"evil" not in refused.head


# attack PRO-10
async def test_a_page_of_somebody_else_gets_nothing_done(open_home: House) -> None:
    await open_home.agent(CallbackAgent("sales"))
    headers = {"authorization": f"Bearer {open_home.token('alice')}", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=open_home.url) as http:
        for origin in ("https://evil.test", "null", "", open_home.url + ".evil.test", "file://", open_home.url.replace("http", "ws")):
            for path in ("/mcp", "/agents/sales", "/api/agents", "/oauth/consent", "/oauth/revoke"):
                answer = await http.post(path, content=PING, headers=headers | {"origin": origin})
                assert answer.status_code == 403, (path, origin)
                assert "access-control-allow-origin" not in answer.headers
        assert (await http.post("/mcp", content=PING, headers=headers | {"origin": open_home.url})).status_code == 200
        assert (await http.get("/.well-known/jwks.json", headers={"origin": "https://evil.test"})).status_code == 200
        for path in ("/mcp", "/agents/sales", "/api/tasks"):
            preflight = await http.options(path, headers={"origin": "https://evil.test", "access-control-request-method": "POST"})
            assert preflight.status_code in (401, 403, 404, 405) and "access-control-allow-origin" not in preflight.headers


# attack PRO-10
async def test_there_is_no_websocket(open_home: House) -> None:
    upgrade = ["Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    for path in ("/mcp", "/agents/sales", "/api/tasks"):
        request = head(open_home, f"GET {path} HTTP/1.1", *upgrade).replace(b"Connection: close", b"Connection: Upgrade, close")
        assert (await say(open_home, request)).status in (200, 400, 405), path  # answered as if nothing had been said of it


# attack PRO-07
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "CONNECT", "MCP", "get"])
async def test_odd_methods_do_nothing(open_home: House, method: str) -> None:
    agent = await open_home.agent(CallbackAgent("sales"))
    for path in ("/mcp", "/agents/sales", "/oauth/token", "/oauth/revoke", "/api/kill"):
        said = await say(open_home, head(open_home, f"{method} {path} HTTP/1.1", "X-HTTP-Method-Override: POST"))
        assert said.status in (400, 403, 404, 405, 0), path
        assert b"authorization" not in said.body.lower()
        without = await say(open_home, f"{method} {path} HTTP/1.1\r\nHost: {open_home.url[7:]}\r\nConnection: close\r\n\r\n".encode())
        assert without.status in (400, 401, 404, 405, 0), path
    assert agent.requests == []


# attack PRO-07
async def test_odd_paths_lead_nowhere_or_to_the_same_questions(open_home: House) -> None:
    await open_home.agent(CallbackAgent("sales"))
    odd = [
        "//mcp",
        "/mcp//",
        "/mcp/../api/tasks",
        "/mcp/%2e%2e/api/tasks",
        "/mcp/..%2fapi%2ftasks",
        "/mcp;x=1",
        "/mcp/;x",
        "/./mcp",
        "/MCP",
        "/mcp%00",
    ]
    odd += [
        "/api/tasks/",
        "/api//tasks",
        "/api/tasks;x",
        "/api/%74asks/x",
        "/agents/sales/../../api/tasks",
        "/agents/sales%2f",
        "/agents//sales",
        "/agents/",
    ]
    odd += [
        "/.well-known/../api/tasks",
        "/.well-known/%2e%2e/api/tasks",
        "/livez/../api/tasks",
        "/docs/../api/tasks",
        "*",
        "?",
        "/%ff%fe",
        "/\\mcp",
        "/mcp\\..\\api",
    ]
    for path in odd:
        for method in ("GET", "POST"):
            nobody = f"{method} {path} HTTP/1.1\r\nHost: {open_home.url[7:]}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode()
            said = await say(open_home, nobody)
            assert said.status in (400, 401, 404, 405, 0), (method, path, said.status)
            somebody = await say(open_home, head(open_home, f"{method} {path} HTTP/1.1", "Content-Length: 0"))
            assert somebody.status < 500 and somebody.status != 307, (method, path)
    encoded = await say(open_home, posted(open_home, "/%6d%63%70"))
    assert encoded.status in (200, 404)
    assert (await say(open_home, posted(open_home, "/%6d%63%70").replace(b"Authorization", b"X-Nothing"))).status in (401, 404)


# attack PRO-01
async def test_no_header_is_made_from_what_a_stranger_wrote(open_home: House) -> None:
    server = await open_home.server("inventory", "check")
    token = open_home.token("alice")
    for name in ("inventory_check\r\nX-Admin: 1", "inventory_check\x00", "inventory_check\n", "größe", "inventory_check\u2028"):
        answer = await open_home.rpc("/mcp", token, "tools/call", {"name": name, "arguments": {}})
        assert answer.json()["error"]["code"] == -32602
        assert "x-admin" not in answer.headers
    for line in (
        "X: a\x00b",
        "X: a\nb",
        "X : y",
        " X: y",
        "X\x00: y",
        ": y",
        "Authorization: Bearer x",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
    ):
        said = await say(open_home, posted(open_home, "/mcp", PING, line))
        assert said.status in (200, 400, 0), line
    assert server.bytes == []
    fine = await open_home.call(token, "/mcp", "inventory_check", {})
    assert "result" in fine.json() and b"X-Admin" not in server.bytes[0]


# attack PRO-01: what is not ASCII in a header that decides something
async def test_headers_that_cannot_be_read_decide_nothing(open_home: House) -> None:
    await open_home.agent(CallbackAgent("sales"))
    for name in ("Origin", "A2A-Version", "Idempotency-Key", "Content-Type", "Mcp-Session-Id", "MCP-Protocol-Version", "Mcp-Method"):
        for path in ("/mcp", "/agents/sales"):
            request = posted(open_home, path, PING, f"X-Here: {name}").replace(b"X-Here: ", name.encode() + b": \xe9\xff")
            said = await say(open_home, request)
            assert said.status in (200, 400, 403, 404), (name, path)
            assert said.status != 200 or path == "/mcp" or b"error" in said.body


# attack PRO-04
async def test_a_length_that_lies_is_not_believed(open_home: House) -> None:
    limit = open_home.gateway.settings.server.max_body
    big = head(open_home, "POST /mcp HTTP/1.1", f"Content-Length: {limit + 1}", "Content-Type: application/json")
    assert (await say(open_home, big, b"{")).status == 413  # before the body came
    huge = head(open_home, "POST /mcp HTTP/1.1", "Content-Length: 99999999999999999999999")
    assert (await say(open_home, huge, b"{")).status in (400, 413)
    chunked = head(open_home, "POST /mcp HTTP/1.1", "Transfer-Encoding: chunked", "Content-Type: application/json")
    chunk = b"%x\r\n" % 65536 + b" " * 65536 + b"\r\n"
    said = await say(open_home, chunked, *[chunk] * (limit // 65536 + 2))  # answered before the end, which never comes
    assert said.status in (413, 0)
    whole = b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in PING) + b"0\r\n\r\n"
    assert json.loads((await say(open_home, chunked, whole)).body)["result"] == {}
    for odd in ("-1", "1e3", "+5", "5, 5", "0x10", ""):
        said = await say(open_home, head(open_home, "POST /mcp HTTP/1.1", f"Content-Length: {odd}") + PING)
        assert said.status in (400, 0), odd
    short = head(open_home, "POST /mcp HTTP/1.1", "Content-Length: 5", "Content-Type: application/json") + PING
    assert (await say(open_home, short)).status == 400


async def test_a_client_that_leaves_in_the_middle_disturbs_nobody(open_home: House) -> None:
    agent = await open_home.agent(CallbackAgent("sales"))
    for cut in (1, 10, len(PING) - 1):
        _reader, writer = await asyncio.open_connection("127.0.0.1", int(open_home.url.rpartition(":")[2]))
        request = posted(open_home, "/agents/sales")
        writer.write(request[:-cut])
        await writer.drain()
        writer.transport.abort()
    answer: Any = await open_home.send(open_home.token("alice"), "sales", "hello")
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    assert len(agent.requests) == 1
