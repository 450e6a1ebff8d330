"""Headers as clients and proxies write them: on several lines, with bytes that no text has. Each is read or refused, never a fault."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gateway.ingress.http.asgi import BadHeader, list_header
from tests.fakes.house import CAPABILITIES, CallbackAgent, House, house

PATHS = {  # by verb; with what each takes as its body
    "POST": {
        "/mcp": {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": CAPABILITIES}},
        "/mcp/inventory": [{"jsonrpc": "2.0", "id": 1, "method": "ping"}],
        "/mcp/virtual/none": {"jsonrpc": "2.0", "id": 1, "result": {}},
        "/agents/sales": {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "x"}},
        "/agents/sales/message:send": {},
        "/agents/sales/notifications/abc": {},
        "/api/agents": {},
        "/api/servers/inventory/approve": {},
        "/access/v1/evaluation": {},
        "/oauth/token": {},
        "/oauth/revoke": {},
        "/connect/abc": {},
        "/nowhere": {},
    },
    "GET": {
        "/agents/sales/tasks": None,
        "/agents/sales/v1/tasks": None,
        "/.well-known/agent-card.json": None,
        "/agents/sales/.well-known/agent-card.json": None,
        "/.well-known/oauth-protected-resource/mcp": None,
        "/.well-known/ai-catalog.json": None,
        "/livez": None,
        "/readyz": None,
        "/metrics": None,
        "/api/tasks": None,
        "/api/tasks/x/events": None,
        "/api/agents/sales": None,
    },
}
NAMES = (
    *("accept", "a2a-extensions", "a2a-version", "authorization", "content-type", "cookie", "dpop", "forwarded", "host", "idempotency-key"),
    *("if-match", "if-modified-since", "if-none-match", "interlock-deadline", "interlock-ticket", "last-event-id", "mcp-method"),
    *("mcp-name", "mcp-protocol-version", "mcp-session-id", "origin", "traceparent", "x-a2a-extensions", "x-forwarded-for", "x-request-id"),
)
GIVEN = {
    "host": b"interlock.test",
    "content-type": b"application/json",
    "accept": b"application/json, text/event-stream",
    "a2a-version": b"1.0",
}
ROUTING = [(b"mcp-protocol-version", b"2026-07-28"), (b"mcp-method", b"tools/list")]
ODD = {
    "twice": lambda usual: [usual, usual],
    "no ASCII": lambda usual: [b"\xff" + usual],
    "a date that there is not": lambda usual: [b"Sun, 31 Dec 99999 23:59:59 GMT"],
}


@pytest.fixture
async def shop(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with house(tmp_path / "home", database_url) as home:
        await home.agent(CallbackAgent("sales"))
        await home.server("inventory", "check")
        yield home


async def ask(home: House, verb: str, path: str, lines: list[tuple[bytes, bytes]]) -> httpx.Response:
    body = PATHS[verb][path]
    return await home.http.request(verb, path, content=b"" if body is None else json.dumps(body).encode(), headers=lines)


def lines_with(name: str, values: list[bytes], token: str) -> list[tuple[bytes, bytes]]:
    usual = {**GIVEN, **({"authorization": f"Bearer {token}".encode()} if token else {})}
    kept = [(known.encode(), value) for known, value in usual.items() if known != name]
    return [*kept, *((name.encode(), value) for value in values)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("known", [True, False], ids=["with a token", "without"])
async def test_no_header_makes_a_fault_of_ours(shop: House, known: bool) -> None:
    token = shop.token("admin") if known else ""
    asked = 0
    for verb, paths in PATHS.items():
        for path in paths:
            for name in NAMES:
                usual = f"Bearer {token}".encode() if name == "authorization" else GIVEN.get(name, b"a")
                for what, made in ODD.items():
                    answer = await ask(shop, verb, path, lines_with(name, made(usual), token))
                    assert answer.status_code < 500, (verb, path, name, what, answer.text)
                    asked += 1
    assert asked == len(NAMES) * len(ODD) * sum(map(len, PATHS.values()))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("accepts", [[b"application/json", b"text/event-stream"], [b"text/event-stream", b"text/html"], [b"*/*", b""]])
async def test_accept_may_stand_on_several_lines(shop: House, accepts: list[bytes]) -> None:
    lines = lines_with("accept", accepts, shop.token("admin"))
    answer = await ask(shop, "POST", "/mcp", lines + ROUTING)
    assert answer.status_code == 200
    assert "result" in answer.json()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_accept_that_is_no_text_is_a_bad_header(shop: House) -> None:
    answer = await ask(shop, "POST", "/mcp", lines_with("accept", [b"\xff"], shop.token("admin")) + ROUTING)
    assert (answer.status_code, answer.json()["error"]["data"]["reason_id"]) == (400, "bad-header")
    without = await ask(shop, "POST", "/mcp", lines_with("accept", [b"\xff"], "") + ROUTING)
    assert without.status_code == 401
    assert without.json()["error"]["data"]["reason_id"] == "unauthenticated"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_tag_on_a_second_line_is_seen(shop: House) -> None:
    card = "/agents/sales/.well-known/agent-card.json"
    tag = (await ask(shop, "GET", card, lines_with("", [], ""))).headers["etag"].encode()
    again = await ask(shop, "GET", card, lines_with("if-none-match", [b'"other"', tag], ""))
    assert again.status_code == 304


def test_a_list_on_several_lines_is_one_list() -> None:
    scope = {"headers": [(b"accept", b"a, b"), (b"host", b"x"), (b"accept", b"c"), (b"vary", b"\xff"), (b"vary", b"a")]}
    assert list_header(scope, b"accept") == "a, b, c"
    assert list_header(scope, b"host") == "x"
    assert list_header(scope, b"via") is None
    with pytest.raises(BadHeader, match="vary is not ASCII"):
        list_header(scope, b"vary")
