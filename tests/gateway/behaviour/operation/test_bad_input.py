"""Bad bodies at every door: a typed error in the caller's protocol, at once, with nothing half-written and nobody else disturbed."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from adapters.openapi.text import DOCUMENT_MAX
from tests.fakes.house import CallbackAgent, House
from tests.fakes.patience import cpu_seconds

A2A_HEAD = b'{"jsonrpc":"2.0","id":1,"method":"SendMessage","params":{"message":{"messageId":"m","role":"ROLE_USER","parts":[{"data":'
MCP_HEAD = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"inventory_check","arguments":{"a":'
CARD_HEAD = b'{"card":'
HEADS = {
    "/agents/sales": (A2A_HEAD, b"}]}}}"),
    "/mcp": (MCP_HEAD, b"}}}"),
    "/mcp/inventory": (MCP_HEAD.replace(b"inventory_check", b"check"), b"}}}"),
    "/api/agents": (CARD_HEAD, b"}"),
    "/api/servers": (b'{"name":', b"}"),
}
VALUES = {  # as a value deep inside a request that is well otherwise
    "a key twice": b'{"a":1,"a":2}',
    "a key twice, escaped": b'{"a":1,"\\u0061":2}',
    "bad UTF-8": b'"\xff\xfe"',
    "an overlong slash": b'"\xc0\xaf"',
    "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "1e400": b"1e400",
    "5000 digits": b"9" * 5000,
    "a lone surrogate": b'"\\udead"',
    "10,000 levels": b"[" * 10_000 + b"]" * 10_000,
    "100,000 levels": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "100,000 levels that never end": b"[" * 100_000,
    "a control character": b'"\x00"',
    "half a text": b'"',
    "a comment": b"/* */ 1",
    "a comma too many": b"[1,]",
    "single quotes": b"'a'",
}
WHOLE = {
    "nothing": b"",
    "a space": b" ",
    "half": b'{"jsonrpc":',
    "two": b'{"jsonrpc":"2.0"} {}',
    "UTF-16": '{"jsonrpc":"2.0"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"jsonrpc":"2.0"}',
    "HTML": b"<html>",
    "gzip": b"\x1f\x8b\x08\x00" + b"\x00" * 100,
    "a form": b"a=1&b=2",
}
SEND = {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}}
PATCHES: dict[str, Any] = {  # well-formed JSON that is no message
    "no message": {},
    "a message of another kind": {"message": []},
    "no parts": {"message": SEND["message"] | {"parts": []}},
    "1001 parts": {"message": SEND["message"] | {"parts": [{"text": "x"}] * 1001}},
    "a part of nothing": {"message": SEND["message"] | {"parts": [{}]}},
    "a part of two": {"message": SEND["message"] | {"parts": [{"text": "x", "url": "y"}]}},
    "a number for a text": {"message": SEND["message"] | {"parts": [{"text": 5}]}},
    "no base64": {"message": SEND["message"] | {"parts": [{"raw": "%%%"}]}},
    "an unknown role": {"message": SEND["message"] | {"role": "ROLE_ADMIN"}},
    "a role of 0.3": {"message": SEND["message"] | {"role": "user"}},
    "no id": {"message": {name: value for name, value in SEND["message"].items() if name != "messageId"}},
    "an empty id": {"message": SEND["message"] | {"messageId": ""}},
    "a long id": {"message": SEND["message"] | {"messageId": "x" * 257}},
    "a context with NUL": {"message": SEND["message"] | {"contextId": "a\u0000b"}},
    "a context with a line feed": {"message": SEND["message"] | {"contextId": "a\r\nX-Admin: 1"}},
    "a task with NUL": {"message": SEND["message"] | {"taskId": "\u0000"}},
    "a context that turns the line": {"message": SEND["message"] | {"contextId": "\u202eevil"}},
    "a negative history": SEND | {"configuration": {"historyLength": -1}},
    "half a history": SEND | {"configuration": {"historyLength": 1.5}},
    "a huge history": SEND | {"configuration": {"historyLength": "9" * 30}},
    "a configuration of another kind": SEND | {"configuration": []},
    "yes": SEND | {"configuration": {"returnImmediately": "yes"}},
    "nothing at all": None,
    "a list": [],
    "a text": "hello",
}


async def furnished(home: House) -> tuple[CallbackAgent, Any]:
    agent = await home.agent(CallbackAgent("sales"))
    return agent, await home.server("inventory", "check")


async def post(home: House, path: str, body: bytes, user: str = "admin", **headers: str) -> httpx.Response:
    sent = {"authorization": f"Bearer {home.token(user)}", "content-type": "application/json", "A2A-Version": "1.0", **headers}
    return await home.http.post(path, content=body, headers=sent)


def code(path: str, answer: httpx.Response) -> Any:
    """The JSON-RPC code, or on /api the reason."""
    assert answer.status_code < 500, answer.text
    if path.startswith("/api"):
        assert answer.headers["content-type"] == "application/problem+json"
        return answer.json()["reason_id"]
    return answer.json()["error"]["code"]


async def rows(home: House) -> tuple[int, ...]:
    counts = "SELECT (SELECT count(*) FROM tasks), (SELECT count(*) FROM task_events), (SELECT count(*) FROM registrations)"
    return await home.gateway.database.read(lambda connection: tuple(connection.exec_driver_sql(counts).one()))


# attack PRO-04
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_bad_json_is_refused_at_every_door_before_anything_happens(home: House) -> None:
    agent, server = await furnished(home)
    before = await rows(home)
    for path, (head, tail) in HEADS.items():
        assert code(path, await post(home, path, head + b"]" + tail)) in (-32700, "bad-json")  # the frame itself is what is refused
        for what, body in {**{name: head + value + tail for name, value in VALUES.items()}, **WHOLE}.items():
            with cpu_seconds(10):
                answer = await post(home, path, body)
            assert code(path, answer) in (-32700, "bad-json"), (path, what)
            assert answer.status_code == (200 if path.startswith("/agents") else 400), (path, what)
            assert len(answer.content) < 600, what  # nothing of the body comes back
    assert (agent.requests, server.calls) == ([], [])
    assert await rows(home) == before


async def test_what_is_no_message_is_refused_with_the_field_that_is_wrong(home: House) -> None:
    agent, _ = await furnished(home)
    before = await rows(home)
    for method in ("SendMessage", "SendStreamingMessage"):
        for what, params in PATCHES.items():
            answer = await home.rpc("/agents/sales", home.token("alice"), method, params, **{"A2A-Version": "1.0"})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (200, -32602), what
            assert error["data"][0]["fieldViolations"][0]["field"], what
    for method in ("GetTask", "CancelTask"):
        for params in ({}, {"id": 5}, {"id": ""}, {"id": "a\u0000"}, {"id": "x" * 257}, {"id": "t", "historyLength": "1.5"}, [], None, "t"):
            answer = await home.rpc("/agents/sales", home.token("alice"), method, params, **{"A2A-Version": "1.0"})
            assert answer.json()["error"]["code"] == -32602, params
    assert agent.requests == []
    assert await rows(home) == before


# attack TEN-08, PRO-01: on either database
async def test_odd_ids_and_filters_find_nothing_and_break_nothing(home: House) -> None:
    await furnished(home)
    token = home.token("alice")
    mine = (await home.send(token, "sales", "hello", contextId="' OR 1=1 --"))["result"]["task"]
    assert mine["contextId"] == "' OR 1=1 --"
    odd = ["' OR '1'='1", "%", "_", "t_%", "x' UNION SELECT 1 --", "\\", "%00", "a%00b", "%0d%0aX: 1", "..%2f..", "\u202e", "x" * 3000]
    headers = {"authorization": f"Bearer {token}"}
    for text in odd:
        for path in (
            f"/api/tasks/{text}",
            f"/api/tasks/{text}/events",
            f"/api/decisions/{text}",
            f"/api/agents/{text}",
            f"/api/servers/{text}",
        ):
            assert (await home.http.get(path, headers=headers)).status_code in (400, 404, 422), path
        for name in ("agent", "state", "context_id", "cursor"):
            answer = await home.http.get(f"/api/tasks?{name}={text}", headers=headers)
            assert answer.status_code in (200, 400, 422), (name, text)
            assert answer.status_code != 200 or answer.json()["items"] == [], (name, text)
    found = await home.http.get("/api/tasks", params={"context_id": "' OR 1=1 --"}, headers=headers)
    assert [item["id"] for item in found.json()["items"]] == [mine["id"]]


async def test_odd_keys_and_numbers_do_not_break_a_good_message(home: House) -> None:
    agent, server = await furnished(home)
    whole: dict[str, Any] = {"big": 10**300, "small": -(10**300), "float": 1e308, "null": None, "\u0000": "\u0000", "größe": "\U0001f600"}
    sent = await home.rpc(
        "/agents/sales",
        home.token("alice"),
        "SendMessage",
        {
            "message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"data": whole}, {"text": "a\u0000b"}], "metadata": whole},
            "x-unknown": whole,
        },
        **{"A2A-Version": "1.0"},
    )
    task = sent.json()["result"]["task"]
    assert task["history"][0]["parts"][0]["data"] == whole
    assert agent.requests[0]["params"]["message"]["parts"][0]["data"] == whole
    assert (await home.send_get(home.token("alice"), "sales", task["id"]))["result"] == task
    called = await home.call(home.token("alice"), "/mcp", "inventory_check", whole)
    assert json.loads(called.json()["result"]["content"][0]["text"]) == whole == server.calls[0][1]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_odd_keys_of_idempotency_are_refused(home: House) -> None:
    agent, _ = await furnished(home)
    for key in ("x" * 257, "x" * 60_000, "a\tb"):
        refused = await home.send(home.token("alice"), "sales", "hello", headers={"Idempotency-Key": key})
        assert refused["error"]["code"] == -32600
    assert agent.requests == []
    assert "result" in await home.send(home.token("alice"), "sales", "hello", headers={"Idempotency-Key": ""})


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_body_that_calls_itself_something_else_is_not_read(home: House) -> None:
    agent, server = await furnished(home)
    a2a = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": SEND}).encode()
    for path, status in (("/agents/sales", 200), ("/mcp", 415)):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonx", "json"):
            answer = await post(home, path, a2a, **{"content-type": kind})
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, -32005), kind
    assert (agent.requests, server.calls) == ([], [])
    for kind in ("application/json; charset=utf-8", "Application/JSON", "application/a2a+json", ""):
        assert "result" in (await post(home, "/agents/sales", a2a, **{"content-type": kind})).json(), kind


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_body_above_the_limit_is_refused_by_its_length_alone(home: House) -> None:
    await furnished(home)
    limit = home.gateway.settings.server.max_body
    for path in ("/agents/sales", "/mcp", "/mcp/inventory", "/api/agents", "/api/servers"):
        answer = await post(home, path, b'"' + b"x" * (DOCUMENT_MAX if path == "/api/servers" else limit))  # OpenAPI documents are large
        assert answer.status_code == 413, path
        assert code(path, answer) in (-32600, "body-too-large")
    form = await home.http.post(
        "/oauth/token", content=b"a=" + b"x" * (1 << 20), headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert (form.status_code, form.json()["error"]) == (400, "invalid_request")


# attack PRO-04: whoever sends rubbish takes nobody else's time
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_others_go_on_meanwhile(home: House) -> None:
    await furnished(home)
    hostile = [A2A_HEAD + value + b"}]}}}" for value in VALUES.values()] + [b'"' + b'\\"' * 1_000_000 + b"[]" * 65]
    flood = asyncio.gather(*(post(home, "/agents/sales", body, "mallory") for body in hostile * 2))
    answers = await asyncio.gather(*(home.call(home.token("alice"), "/mcp", "inventory_check", {"n": n}) for n in range(10)))
    assert all(answer.json()["result"]["content"] == [{"type": "text", "text": json.dumps({"n": n})}] for n, answer in enumerate(answers))
    assert {answer.json()["error"]["code"] for answer in await flood} == {-32700}


# attack PRO-04 at the token endpoint
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_bad_forms_are_refused_as_oauth_says(home: House) -> None:
    await furnished(home)
    bodies = [
        b"",
        b"\xff",
        b"%zz=1",
        b"a=%ff",
        b"grant_type=a&grant_type=b",
        b"a=%00",
        b"&".join(b"a%d=1" % n for n in range(1000)),
        *WHOLE.values(),
    ]
    for body in bodies:
        answer = await home.http.post(
            "/oauth/token", content=body, headers={"content-type": "application/x-www-form-urlencoded"}, auth=home.secrets["sales"]
        )
        assert answer.status_code == 400 and answer.json()["error"] in ("invalid_request", "unsupported_grant_type"), body[:50]
        assert answer.headers["cache-control"] == "no-store"
    wrong = await home.http.post("/oauth/token", json={"grant_type": "x"}, auth=home.secrets["sales"])
    assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_request")
