"""One trace from the client to the agent to the tool, as a collector gets it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from gateway.ingress.mcp_server.protocol.errors import TRACE_KEY
from gateway.ingress.oauth.token import EXCHANGE_METHOD
from gateway.server.composition.process import Gateway
from registry.cards.card import McpResource
from tests.fakes.collector import Collector, collecting
from tests.fakes.house import CAPABILITIES, SPAN, TRACE, TRACEPARENT, CallbackAgent, House, house
from tests.fakes.mcp_servers import scripted_server

SERVER, CLIENT = 2, 3  # span kinds of OTLP


@pytest.fixture
async def traced(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[House, Collector]]:
    """A gateway that exports every trace to a collector on loopback."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with house(tmp_path, database_url, telemetry={"sample": 1.0}) as built:
            yield built, collector


def flush(home: House) -> None:
    assert home.gateway.tracer is not None
    home.gateway.tracer.flush()


async def test_one_trace_leads_from_the_client_over_the_agent_to_the_tool(traced: tuple[House, Collector]) -> None:
    home, collector = traced
    server = await home.server("inventory", "check")
    agent = CallbackAgent("sales")

    async def check(token: str, text: str) -> str:
        hop = await home.exchanged("sales", token, "/mcp/inventory", "tool:inventory.check")
        sent = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "check"}
        params = {"name": "check", "arguments": {"text": text}, "_meta": CAPABILITIES}
        given = agent.headers[-1]["traceparent"]
        return (await home.rpc("/mcp/inventory", hop, "tools/call", params, **sent, traceparent=given)).text

    agent.act = check
    await home.agent(agent)
    answer = await home.send(home.token("alice"), "sales", "SKU-7", headers={"traceparent": TRACEPARENT})
    assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
    flush(home)
    received, invoked = collector.one("SendMessage sales", SERVER), collector.one("invoke_agent sales", CLIENT)
    called, executed = collector.one("tools/call check", SERVER), collector.one("tools/call check", CLIENT)
    hops = (received, invoked, called, executed)
    assert {span.trace_id for span in hops} == {TRACE}
    assert [span.parent_id for span in hops] == [SPAN, *(span.span_id for span in hops[:-1])]
    assert f"00-{TRACE}-{executed.span_id}-01".encode() in server.bytes[-1]
    meta = json.JSONDecoder().raw_decode(server.bytes[-1].decode())[0]["params"]["_meta"]
    assert meta["traceparent"][36:52] == executed.span_id


async def test_spans_have_the_attributes_of_the_conventions(traced: tuple[House, Collector]) -> None:
    home, collector = traced
    await home.server("inventory", "check")
    await home.agent(CallbackAgent("sales"))
    await home.send(home.token("alice"), "sales", "hello")
    await home.call(home.token("alice"), "/mcp/inventory", "check", {"secret": "of-alice"})
    flush(home)
    invoked = collector.one("invoke_agent sales").attributes
    assert (invoked["gen_ai.operation.name"], invoked["gen_ai.agent.name"], invoked["gen_ai.provider.name"]) == (
        "invoke_agent",
        "sales",
        "a2a",
    )
    assert invoked["gen_ai.conversation.id"] and invoked["interlock.task.id"] and invoked["server.address"] == "127.0.0.1"
    executed = collector.one("tools/call check", CLIENT).attributes
    assert (executed["mcp.method.name"], executed["gen_ai.tool.name"]) == ("tools/call", "check")
    assert (executed["gen_ai.operation.name"], executed["interlock.server"]) == ("execute_tool", "inventory")
    called = collector.one("tools/call check", SERVER).attributes
    assert (called["mcp.method.name"], called["jsonrpc.request.id"], called["interlock.door"]) == ("tools/call", "7", "mcp")
    assert "of-alice" not in repr(collector.spans)


async def test_spans_reach_the_collector_when_the_gateway_stops(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")  # ms: only the stop exports
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        async with house(tmp_path, database_url, telemetry={"sample": 1.0}) as home:
            await home.agent(CallbackAgent("sales"))
            await home.send(home.token("alice"), "sales", "hello")
            assert collector.spans == []
        received, invoked = collector.one("SendMessage sales", SERVER), collector.one("invoke_agent sales", CLIENT)
    assert (received.trace_id, invoked.trace_id, invoked.parent_id) == (TRACE, TRACE, received.span_id)


async def test_the_trace_in_a_message_goes_before_that_of_its_transport(traced: tuple[House, Collector]) -> None:
    home, collector = traced
    await home.server("inventory", "check")
    meta = {**CAPABILITIES, "traceparent": TRACEPARENT}
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "check"}
    other = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    params = {"name": "check", "arguments": {}, "_meta": meta}
    await home.rpc("/mcp/inventory", home.token("alice"), "tools/call", params, **headers, traceparent=other)
    flush(home)
    assert (collector.one("tools/call check", SERVER).trace_id, collector.one("tools/call check", SERVER).parent_id) == (TRACE, SPAN)


async def test_a_tools_error_makes_both_spans_fail(traced: tuple[House, Collector]) -> None:
    home, collector = traced
    server = await home.server("inventory", "check")
    server.result = lambda _: {"content": [], "isError": True, "resultType": "complete"}  # type: ignore[method-assign]  # another answer
    await home.call(home.token("alice"), "/mcp/inventory", "check", {})
    flush(home)
    found = [collector.one("tools/call check", kind) for kind in (SERVER, CLIENT)]
    assert [(span.failed, span.attributes["error.type"]) for span in found] == [(True, "tool-error")] * 2


async def test_a_later_turn_links_to_where_its_task_began(traced: tuple[House, Collector]) -> None:
    home, collector = traced
    agent = await home.agent(CallbackAgent("sales"))
    agent.state = "TASK_STATE_INPUT_REQUIRED"
    task = (await home.send(home.token("alice"), "sales", "hello", headers={"traceparent": TRACEPARENT}))["result"]["task"]
    agent.state = "TASK_STATE_COMPLETED"
    other = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    await home.send(home.token("alice"), "sales", "yes", taskId=task["id"], contextId=task["contextId"], headers={"traceparent": other})
    flush(home)
    turns = {span.trace_id: span.links for span in collector.spans if span.name == "invoke_agent sales"}
    assert turns == {TRACE: (), "1" * 32: (TRACE,)}


async def test_administration_and_tokens_have_spans_named_by_their_route(traced: tuple[House, Collector]) -> None:
    home, collector = traced
    await home.agent(CallbackAgent("sales"))
    await home.http.get("/api/agents/sales", headers={"authorization": f"Bearer {home.token('alice')}"})
    await home.exchange("sales", "no token", "/mcp", "tool:*")
    flush(home)
    names = [span.name for span in collector.spans]
    assert "GET /api/agents/{name}" in names and any(name.startswith("POST") for name in names)


async def problem_of(home: House, kind: str) -> Any:
    """The trace id in an error of each interface."""
    token, sent = home.token("alice"), {"traceparent": TRACEPARENT}
    if kind == "a2a":
        return (await home.send(token, "unknown", "hello", headers=sent))["error"]["data"][0]["metadata"]["trace_id"]
    if kind == "mcp":
        answer = await home.rpc("/mcp", token, "tools/call", {"name": "unknown"}, **sent)
        return answer.json()["error"]["data"]["trace_id"]
    if kind == "rest":
        answer = await home.http.get("/agents/unknown/v1/card", headers={"authorization": f"Bearer {token}", **sent})
        return answer.json()["error"]["details"][0]["metadata"]["trace_id"]
    if kind == "host":
        return (await home.http.get("/api/agents", headers={"host": "elsewhere.test", **sent})).json()["trace_id"]
    return (await home.http.get("/api/agents/unknown", headers={"authorization": f"Bearer {token}", **sent})).json()["trace_id"]


OAUTH_ERRORS: dict[str, tuple[str, str, int, dict[str, Any]]] = {  # method, path, status, and what is wrong with the request
    "no client": ("POST", "/oauth/token", 401, {"auth": None, "data": {"grant_type": "x"}}),
    "no form": ("POST", "/oauth/token", 400, {"json": {}}),
    "no token": ("POST", "/oauth/token", 400, {"data": {"grant_type": EXCHANGE_METHOD}}),
    "no proof": ("POST", "/oauth/token", 400, {"data": {"grant_type": "x"}, "headers": {"dpop": "odd"}}),
    "nothing to revoke": ("POST", "/oauth/revoke", 400, {"data": {"token_type_hint": "x"}}),
    "a wrong method": ("GET", "/oauth/token", 405, {}),
    "no such resource": ("GET", "/.well-known/oauth-protected-resource/odd", 404, {}),
}


@pytest.mark.parametrize("wrong", OAUTH_ERRORS)
async def test_every_error_of_oauth_names_its_trace(home: House, wrong: str) -> None:
    await home.agent(CallbackAgent("sales"))
    method, path, status, request = OAUTH_ERRORS[wrong]
    answer = await home.http.request(method, path, **{"auth": home.secrets["sales"], **request})
    assert (answer.status_code, answer.json()["trace_id"]) == (status, TRACE), answer.text


async def test_a_page_that_fails_shows_its_trace(home: House) -> None:
    failed, shown = await home.http.get("/connect/callback?state=odd"), await home.http.get("/connect/odd")
    assert (failed.status_code, TRACE in failed.text) == (404, True)
    assert (shown.status_code, TRACE in shown.text) == (200, False)


@pytest.mark.parametrize("kind", ["a2a", "mcp", "rest", "host", "api"])
async def test_every_error_names_its_trace(home: House, kind: str) -> None:
    """Without a tracer, too: then the gateway passes the caller's trace on."""
    assert home.gateway.tracer is None
    assert await problem_of(home, kind) == TRACE


async def mcp_error(home: House, params: Any, **headers: str) -> Any:
    return (await home.rpc("/mcp", home.token("alice"), "tools/call", params, **headers)).json()["error"]


async def test_errors_of_the_mcp_envelope_and_of_sessions_name_their_trace(home: House) -> None:
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "check"}
    lacking = await mcp_error(home, {"name": "check", "_meta": {}}, **headers)
    assert (lacking["code"], lacking["data"]) == (-32602, {"trace_id": TRACE})
    gone = await mcp_error(home, {"name": "check"}, **{"mcp-session-id": "gone", "mcp-protocol-version": "2025-11-25"})
    assert (gone["code"], gone["data"]) == (-32600, {"trace_id": TRACE})


async def refusing_server(home: House, **given: Any) -> None:
    """A server that refuses each call with an error that has these members."""

    async def refuse(request: dict[str, Any]) -> Response:
        return JSONResponse({"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32000, "message": "no such item", **given}})

    url = await home.stack.enter_async_context(scripted_server(refuse))
    resource = McpResource("a://b", {"uri": "a://b", "name": "b"})
    await home.server("inventory", "check", url=url.removesuffix("/mcp"), resources=(resource,))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, {"trace_id": TRACE}),
        ({"data": {"field": "sku"}}, {"field": "sku", TRACE_KEY: TRACE}),
        ({"data": {"trace_id": "of the server", TRACE_KEY: "forged"}}, {"trace_id": "of the server", TRACE_KEY: TRACE}),
        ({"data": "SKU-7"}, "SKU-7"),
        ({"data": ["SKU-7"]}, ["SKU-7"]),
    ],
)
async def test_a_servers_error_keeps_its_data_and_names_the_trace(home: House, given: dict[str, Any], shown: Any) -> None:
    await refusing_server(home, **given)
    answer = await home.call(home.token("alice"), "/mcp/inventory", "check", {})
    assert answer.json()["error"] == {"code": -32000, "message": "no such item", "data": shown}
    assert answer.headers["interlock-trace-id"] == TRACE


@pytest.mark.parametrize("data", [7, "the uri", {"uri": "a://other"}])
async def test_any_data_in_the_refusal_of_a_resource_is_passed_on(home: House, data: Any) -> None:
    await refusing_server(home, data=data)
    sent = {"mcp-protocol-version": "2026-07-28", "mcp-method": "resources/read", "mcp-name": "a://b"}
    params = {"uri": "a://b", "_meta": CAPABILITIES}
    answer = await home.rpc("/mcp/inventory", home.token("admin"), "resources/read", params, **sent)
    assert (answer.json()["error"]["code"], answer.headers["interlock-trace-id"]) == (-32000, TRACE)


async def test_the_stream_before_an_error_names_the_trace_in_its_header(home: House) -> None:
    told = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": "p", "progress": 1}}

    async def refuse(request: dict[str, Any]) -> Response:
        told["params"]["progressToken"] = request["params"]["_meta"]["progressToken"]  # type: ignore[index]  # of the request
        error = {"jsonrpc": "2.0", "id": request["id"], "error": {"code": -32000, "message": "no such item", "data": "SKU-7"}}
        events = "".join(f"data: {json.dumps(event)}\n\n" for event in (told, error))
        return Response(events, media_type="text/event-stream")

    url = await home.stack.enter_async_context(scripted_server(refuse))
    await home.server("inventory", "check", url=url.removesuffix("/mcp"))
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "check", "accept": "text/event-stream"}
    params = {"name": "check", "arguments": {}, "_meta": {**CAPABILITIES, "progressToken": "p"}}
    answer = await home.rpc("/mcp/inventory", home.token("alice"), "tools/call", params, **headers)
    assert answer.headers["content-type"] == "text/event-stream" and '"data":"SKU-7"' in answer.text
    assert answer.headers["interlock-trace-id"] == TRACE


async def test_without_a_tracer_the_callers_trace_goes_on_and_no_span_is_made(home: House) -> None:
    agent, server = await home.agent(CallbackAgent("sales")), await home.server("inventory", "check")
    await home.send(home.token("alice"), "sales", "hello", headers={"traceparent": TRACEPARENT})
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "check", "traceparent": TRACEPARENT}
    params = {"name": "check", "arguments": {}, "_meta": CAPABILITIES}
    await home.rpc("/mcp/inventory", home.token("alice"), "tools/call", params, **headers)
    assert agent.headers[-1]["traceparent"] == TRACEPARENT and TRACEPARENT.encode() in server.bytes[-1]


async def test_a_call_without_a_trace_begins_one(home: House) -> None:
    agent = await home.agent(CallbackAgent("sales"))
    del home.http.headers["traceparent"]
    await home.send(home.token("alice"), "sales", "hello")
    await home.send(home.token("alice"), "sales", "hello")
    first, second = (sent["traceparent"] for sent in agent.headers)
    assert first[3:35] != second[3:35] and {first[-2:], second[-2:]} == {"00"}


async def test_a_task_keeps_the_trace_that_it_began_in(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    task = (await home.send(home.token("alice"), "sales", "hello", headers={"traceparent": TRACEPARENT}))["result"]["task"]
    gateway: Gateway = home.gateway
    caller = await gateway.rulings.caller_resolver.authenticate(home.token("alice"), (home.url,))
    row = await gateway.stores.tasks.find("default", caller.principal.owner_key, task["id"])
    assert row.trace == TRACEPARENT
