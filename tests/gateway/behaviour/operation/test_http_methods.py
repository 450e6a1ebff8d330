"""HTTP as clients, caches and proxies use it: HEAD wherever GET is, every method of a path in Allow, and no compressed bodies."""

import gzip
import json

import pytest

from tests.fakes.house import CAPABILITIES, CallbackAgent, House

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
STREAMS = ("/api/checkpoints/events", "/api/state", "/api/events")
MODERN = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}


@pytest.mark.parametrize(
    "path",
    [
        *("/api/agents", "/api/tasks", "/docs", "/openapi.json", "/livez", "/.well-known/jwks.json", "/.well-known/agent-card.json"),
        *("/agents/sales/.well-known/agent-card.json", "/agents/sales/tasks", "/oauth/authorize", "/console", "/nowhere"),
    ],
)
async def test_head_is_answered_as_get_without_a_body(home: House, path: str) -> None:
    await home.agent(CallbackAgent("sales"))
    headers = {"authorization": f"Bearer {home.token('alice')}"}
    head, got = await home.http.head(path, headers=headers), await home.http.get(path, headers=headers)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers.get("content-type") == got.headers.get("content-type")
    assert head.headers.get("content-length") == got.headers.get("content-length")


@pytest.mark.parametrize("path", STREAMS)
async def test_head_of_a_stream_ends_with_the_head_of_the_answer(home: House, path: str) -> None:
    headers = {"authorization": f"Bearer {home.token('admin')}", "accept": "text/event-stream"}
    answer = await home.http.head(path, headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/agents", "GET, HEAD, POST"),
        ("/api/agents/sales", "DELETE, GET, HEAD, PATCH"),
        ("/api/state/customer/1", "DELETE, GET, HEAD, PATCH, PUT"),
        ("/api/events", "GET, HEAD, POST"),
        ("/oauth/token", "POST"),
        ("/docs", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_all_methods_of_the_path(home: House, path: str, allowed: str) -> None:
    answer = await home.http.request("TRACE", path, headers={"authorization": f"Bearer {home.token('alice')}"})
    assert (answer.status_code, answer.headers["allow"], answer.json()["reason_id"]) == (405, allowed, "wrong-verb")
    assert "GET" not in allowed or (await home.http.head(path)).status_code != 405


async def test_a_compressed_body_is_refused_in_the_words_of_each_protocol(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": CAPABILITIES}}
    bodies = {"/agents/sales": call, "/agents/sales/message:send": {}, "/mcp": call, "/api/agents": {}, "/api/events": {}}
    for path, body in bodies.items():
        headers = {"authorization": f"Bearer {home.token('admin')}", "content-type": "application/json", "content-encoding": "gzip"}
        headers |= MODERN if path == "/mcp" else {"a2a-version": "1.0"}
        answer = await home.http.post(path, headers=headers, content=gzip.compress(json.dumps(body).encode()))
        told = answer.json()
        error = told.get("error", told)
        assert (answer.status_code, "Content-Encoding" in (error.get("message") or error["detail"])) == (415, True), path
        assert ("error" in told) == (not path.startswith("/api")), path


async def test_a_body_that_is_not_encoded_may_say_so(home: House) -> None:
    headers = {"authorization": f"Bearer {home.token('alice')}", "content-encoding": "identity"}
    answer = await home.http.post("/mcp", headers=headers | MODERN, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
    assert answer.status_code != 415
