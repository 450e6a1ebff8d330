"""Which door a path leads to, and what is answered for a door that fails."""

import json
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.ingress.http.asgi import Receive, Scope, Send
from gateway.server.router import Router
from tests.fakes.house import CallbackAgent, House


async def test_an_agents_url_with_a_slash_at_its_end_is_the_same_door(home: House) -> None:
    """Clients that join paths to a base URL post there, the public A2A kit among them."""
    await home.agent(CallbackAgent("sales"))
    answer = await home.rpc("/agents/sales/", home.token("alice"), "GetTask", {"id": "unknown"})
    assert answer.status_code == 200
    assert answer.json()["error"]["code"] == -32001


class Broken:
    """A door that fails, after it has sent what is given."""

    name = "mcp"

    def __init__(self, *sent: dict[str, Any]) -> None:
        self._sent = sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send, *_: Any) -> None:
        for message in self._sent:
            await send(message)
        raise KeyError("secret")


class Wire:
    """The sending side of a server, which refuses a second beginning as uvicorn does."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def __call__(self, message: Any) -> None:
        if self.sent and message["type"] == "http.response.start":
            raise RuntimeError("Unexpected ASGI message")
        self.sent.append(message)


async def no_body() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def broken(home: House, door: Broken) -> Router:
    front = home.app
    doors = replace(front._handlers, a2a=door, mcp=door, health=door)  # type: ignore[arg-type]  # stand-ins for the doors
    return Router(front._authentication, doors, front._request_traces, front._drain)


def request(path: str) -> dict[str, Any]:
    return {"type": "http", "method": "GET", "path": path, "headers": [(b"host", b"interlock.test")], "query_string": b""}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("path", ["/mcp", "/agents/sales", "/livez", "/.well-known/agent-card.json"])
async def test_a_door_that_fails_is_answered_for(home: House, path: str) -> None:
    wire = Wire()
    with capture_logs() as logged:
        await broken(home, Broken())(request(path), no_body, wire)
    start, body = wire.sent
    assert start["status"] == 500
    assert json.loads(body["body"])["reason_id"] == "internal"
    assert b"secret" not in body["body"]
    assert [entry["event"] for entry in logged] == ["request_failed"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_answer_that_has_begun_is_left_to_the_server_to_cut(home: House) -> None:
    wire = Wire()
    begun = {"type": "http.response.start", "status": 200, "headers": []}
    with pytest.raises(KeyError):
        await broken(home, Broken(begun))(request("/mcp"), no_body, wire)
    assert wire.sent == [begun]
