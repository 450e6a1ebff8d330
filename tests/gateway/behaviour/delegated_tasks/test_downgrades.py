"""No older version, other binding or extension is a weaker way in: the same checks everywhere, or an error that says so (PRO-13)."""

import time
from itertools import product
from typing import Any

import httpx
import pytest

from tests.fakes.house import CAPABILITIES, CallbackAgent, House
from tests.fakes.proofs import Prover
from tests.fakes.reference_clients import GRPC, client_of, sent

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
SEND = {"message": {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hi"}]}}
OLD_SEND = {"message": {"messageId": "m1", "role": "user", "kind": "message", "parts": [{"kind": "text", "text": "hi"}]}}
OLD_HELLO = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
CALL = {"name": "reserve", "arguments": {}}
Way = tuple[str, str, dict[str, str], Any]  # method, path, headers, body


def rpc(path: str, method: str, params: Any, **headers: str) -> Way:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return "POST", path, named, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


MODERN = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call", "mcp_name": "reserve"}
WAYS: dict[str, Way] = {
    "a2a-1.0": rpc("/agents/sales", "SendMessage", SEND, a2a_version="1.0"),
    "a2a-1.0-stream": rpc("/agents/sales", "SendStreamingMessage", SEND, a2a_version="1.0"),
    "a2a-0.3": rpc("/agents/sales", "message/send", OLD_SEND, a2a_version="0.3"),
    "a2a-0.3-unsaid": rpc("/agents/sales", "message/send", OLD_SEND),
    "a2a-0.3-stream": rpc("/agents/sales", "message/stream", OLD_SEND, a2a_version="0.3"),
    "a2a-0.2": rpc("/agents/sales", "tasks/send", OLD_SEND, a2a_version="0.2"),
    "a2a-0.1": rpc("/agents/sales", "message/send", OLD_SEND, a2a_version="0.1"),
    "a2a-9.9": rpc("/agents/sales", "SendMessage", SEND, a2a_version="9.9"),
    "a2a-odd-version": rpc("/agents/sales", "SendMessage", SEND, a2a_version="1.0, 0.3"),
    "a2a-unknown-extension": rpc("/agents/sales", "SendMessage", SEND, a2a_version="1.0", a2a_extensions="https://evil.test/no-auth"),
    "a2a-method-of-the-other": rpc("/agents/sales", "message/send", OLD_SEND, a2a_version="1.0"),
    "a2a-rest-1.0": ("POST", "/agents/sales/message:send", {"A2A-Version": "1.0"}, SEND),
    "a2a-rest-0.3": ("POST", "/agents/sales/v1/message:send", {"A2A-Version": "0.3"}, {**OLD_SEND}),
    "a2a-rest-0.2": ("POST", "/agents/sales/message:send", {"A2A-Version": "0.2"}, SEND),
    "mcp-2026-07-28": rpc("/mcp/inventory", "tools/call", {**CALL, "_meta": CAPABILITIES}, **MODERN),
    "mcp-hello-2025-11-25": rpc("/mcp/inventory", "initialize", {**OLD_HELLO, "protocolVersion": "2025-11-25"}),
    "mcp-hello-2025-06-18": rpc("/mcp/inventory", "initialize", {**OLD_HELLO, "protocolVersion": "2025-06-18"}),
    "mcp-hello-2025-03-26": rpc("/mcp/inventory", "initialize", {**OLD_HELLO, "protocolVersion": "2025-03-26"}),
    "mcp-hello-2024-11-05": rpc("/mcp/inventory", "initialize", OLD_HELLO),
    "mcp-hello-1999": rpc("/mcp/inventory", "initialize", {**OLD_HELLO, "protocolVersion": "1999-01-01"}),
    "mcp-no-session": rpc("/mcp/inventory", "tools/call", CALL, mcp_protocol_version="2025-06-18"),
    "mcp-no-version": rpc("/mcp/inventory", "tools/call", CALL),
    "mcp-odd-version": rpc("/mcp/inventory", "tools/call", CALL, mcp_protocol_version="2099-01-01"),
    "mcp-made-up-session": rpc("/mcp/inventory", "tools/call", CALL, mcp_session_id="s_0", mcp_protocol_version="2025-06-18"),
    "mcp-unknown-extension": rpc(
        "/mcp/inventory", "tools/call", {**CALL, "_meta": {**CAPABILITIES, "test.evil/no-auth": {"admin": True}}}, **MODERN
    ),
    "mcp-batch": ("POST", "/mcp/inventory", {"mcp-protocol-version": "2025-03-26"}, [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL}]),
    "http+sse": ("GET", "/mcp/inventory", {"accept": "text/event-stream"}, None),
    "http+sse-post": ("POST", "/mcp/inventory?sessionId=s_0", {}, {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": CALL}),
}  # fmt: skip


async def go(home: House, way: Way, headers: dict[str, str]) -> httpx.Response:
    method, path, named, body = way
    fixed = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
    return await home.http.request(method, path, headers={**fixed, **named, **headers}, json=body)


async def furnished(home: House) -> tuple[CallbackAgent, Any]:
    return await home.agent(CallbackAgent("sales")), await home.server("inventory", "check", "reserve")


async def test_pro_13_no_way_in_goes_without_a_good_token(home: House) -> None:  # attack PRO-13
    agent, server = await furnished(home)
    bound = {"cnf": {"jkt": Prover(time.time).thumbprint}}
    now = int(time.time())
    person = {"iss": "interlock-development", "sub": "alice", "tid": "default", "aud": home.url, "iat": now, "exp": now + 60, "jti": "u"}
    stolen = home.gateway.keys.sign({**person, **bound}, "at+jwt")
    other = home.token("alice", audience="https://evil.test")
    tries = [{}, {"authorization": "Bearer x.y.z"}, *({"authorization": f"Bearer {token}"} for token in (stolen, other))]
    tries.append({"interlock-ticket": "it_" + "A" * 43})
    for way, headers in product(WAYS, tries):
        answer = await go(home, WAYS[way], headers)
        assert (answer.status_code, "www-authenticate" in answer.headers) == (401, True), (way, headers, answer.text)
    assert agent.requests == [] and server.calls == []


async def test_pro_13_no_way_in_leads_to_what_the_person_may_not(home: House) -> None:  # attack PRO-13
    agent, server = await furnished(home)
    people = (home.token("nora"), home.token("alice", scope="agent:other"), home.token("alice", tenant="rival"))
    for way, token in product((name for name in WAYS if name != "http+sse"), people):  # that opens a stream
        answer = await go(home, WAYS[way], {"authorization": f"Bearer {token}"})
        assert answer.status_code < 500, way
        if "hello" not in way:  # a session may begin, and gives nothing
            assert "error" in answer.text, (way, answer.text)
            assert '"result"' not in answer.text, way
    assert agent.requests == [] and server.calls == []


UNKNOWN = {"a2a-0.2", "a2a-0.1", "a2a-9.9", "a2a-odd-version", "a2a-rest-0.2"}


async def test_pro_13_a_version_that_is_not_served_is_called_that(home: House) -> None:  # attack PRO-13
    agent, _ = await furnished(home)
    for way in sorted(UNKNOWN):
        answer = await go(home, WAYS[way], {"authorization": f"Bearer {home.token('alice')}"})
        assert "VERSION_NOT_SUPPORTED" in answer.text or "-32009" in answer.text or "-32601" in answer.text, (way, answer.text)
    assert agent.requests == []


@pytest.mark.parametrize("door", GRPC)
async def test_pro_13_grpc_is_no_weaker_way_in(every_home: House, door: str) -> None:  # attack PRO-13
    """Bound tokens without their proof, those for others or of nobody, and what the person may not: as over HTTP."""
    home = every_home
    agent = await home.agent(CallbackAgent("sales"))
    now = int(time.time())
    person = {"iss": "interlock-development", "sub": "alice", "tid": "default", "aud": home.url, "iat": now, "exp": now + 60, "jti": "u"}
    stolen = home.gateway.keys.sign({**person, "cnf": {"jkt": Prover(time.time).thumbprint}}, "at+jwt")
    shown = [f"Bearer {token}" for token in ("x.y.z", stolen, home.token("alice", audience="https://evil.test"), home.token("nora"))]
    shown += [f"Bearer {home.token('alice', scope='agent:other')}", f"Bearer {home.token('alice', tenant='rival')}", ""]
    tries = [{"authorization": each} for each in shown] + [{"authorization": "", "interlock-ticket": "it_" + "A" * 43}]
    good = {"authorization": f"Bearer {home.token('alice')}"}
    tries += [{**good, "a2a-version": version} for version in ("0.1", "9.9", "1.0, 0.3")]
    for headers in tries:
        async with client_of(home, door, headers=headers) as client:
            with pytest.raises(Exception, match=r"."):  # of each transport its own
                await sent(client, "hi")
    assert agent.requests == []
    async with client_of(home, door, headers=good) as client:
        assert (await sent(client, "hi")).id
