"""/mcp and /mcp/{server} on the wire: what each era's requests must say, and how every other one is answered."""

import base64
import itertools
import json
from typing import Any

import httpx
import pytest
from mcp.shared.inbound import ERROR_CODE_HTTP_STATUS, InboundLadderRejection, classify_inbound_request

from registry.cards.card import RegistrationStatus
from tests.fakes.house import CAPABILITIES, TRACE, CallbackAgent, House

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
META = "io.modelcontextprotocol/"
LEGACY = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
ABSENT: Any = object()


async def post(home: House, body: Any, path: str = "/mcp", user: str = "alice", **headers: str) -> httpx.Response:
    sent = {"authorization": f"Bearer {home.token(user)}", "content-type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return await home.http.post(path, content=body if isinstance(body, bytes) else json.dumps(body).encode(), headers=sent)


def request(method: str, params: Any = ABSENT, request_id: Any = 1) -> dict[str, Any]:
    document = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
    return {name: value for name, value in document.items() if value is not ABSENT}


def call(name: str = "inventory_check", **more: Any) -> dict[str, Any]:
    return request("tools/call", {"name": name, "arguments": {"sku": "7"}, "_meta": CAPABILITIES, **more})


def routed(name: str = "inventory_check", method: str = "tools/call", version: str = "2026-07-28") -> dict[str, str]:
    return {"mcp_protocol_version": version, "mcp_method": method, "mcp_name": name}


def wrapped(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


async def session(home: House, user: str = "alice", path: str = "/mcp") -> str:
    opened = await post(home, request("initialize", LEGACY), path, user)
    assert opened.status_code == 200 and opened.json()["result"]["protocolVersion"] == "2025-11-25"
    return opened.headers["mcp-session-id"]


@pytest.mark.parametrize("query", ["mode=serch", "mode=", "mode=SEARCH", "mode=search&mode=all", "x=1&mode=%00"])
@pytest.mark.parametrize("path", ["/mcp", "/mcp/inventory"])
async def test_an_unknown_mode_in_the_address_is_refused(home: House, path: str, query: str) -> None:
    await home.server("inventory", "check")
    opened = await post(home, request("initialize", LEGACY), f"{path}?{query}")
    modern = await post(home, request("tools/list", {"_meta": CAPABILITIES}), f"{path}?{query}", **routed("", "tools/list"))
    opening = await home.http.get(
        f"{path}?{query}", headers={"authorization": f"Bearer {home.token('alice')}", "accept": "text/event-stream"}
    )
    for answer in (opened, modern, opening):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["data"]["reason_id"]) == (400, -32600, "invalid-request")
        assert "all and search" in error["message"]


async def test_the_modes_all_and_search_are_served(home: House) -> None:
    await home.server("inventory", "check")
    for query, names in {
        "?mode=all": ["inventory_check"],
        "?mode=search": ["search_tools", "call_tool"],
        "?other=1": ["inventory_check"],
    }.items():
        listed = await post(
            home, request("tools/list", {"_meta": CAPABILITIES}), f"/mcp{query}", mcp_protocol_version="2026-07-28", mcp_method="tools/list"
        )
        assert [tool["name"] for tool in listed.json()["result"]["tools"]] == names


# attack PRO-05
async def test_headers_must_say_what_the_body_says(home: House) -> None:
    server = await home.server("inventory", "check", "reserve")
    good = routed()
    assert (await post(home, call(), **good)).status_code == 200
    assert (await post(home, call(), **good | {"mcp_name": " \tinventory_check  "})).status_code == 200
    assert (await post(home, call(), **good | {"mcp_name": wrapped("inventory_check")})).status_code == 200
    assert len(server.calls) == 3
    wrong = {
        "another name": good | {"mcp_name": "inventory_reserve"},
        "another name in base64": good | {"mcp_name": wrapped("inventory_reserve")},
        "broken base64": good | {"mcp_name": "=?base64?aW52ZW50b3J5X2NoZWN?="},
        "base64 with loose bits": good | {"mcp_name": "=?base64?YR==?="},
        "base64 of no UTF-8": good | {"mcp_name": "=?base64?/w==?="},
        "the name in another case": good | {"mcp_name": "Inventory_check"},
        "another method": good | {"mcp_method": "tools/list"},
        "another version": good | {"mcp_protocol_version": "2025-11-25"},
        "an unknown version": good | {"mcp_protocol_version": "2099-01-01"},
        **{f"no {name}": {other: value for other, value in good.items() if other != name} for name in good},
        "nothing": {},
    }
    for what, headers in wrong.items():
        answer = await post(home, call(), **headers)
        assert (answer.status_code, answer.json()["error"]["code"], answer.json()["id"]) == (400, -32020, 1), what
    assert len(server.calls) == 3


async def test_a_routing_header_that_is_sent_twice_contradicts_itself(home: House) -> None:
    server = await home.server("inventory", "check")
    for name in ("mcp-protocol-version", "mcp-method", "mcp-name"):
        headers = [(key.replace("_", "-"), value) for key, value in routed().items()]
        headers += [(name, dict(headers)[name]), ("authorization", f"Bearer {home.token('alice')}")]
        answer = await home.http.post("/mcp", content=json.dumps(call()).encode(), headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020), name
    assert server.calls == []


# attack PRO-05: the policy uses the body
async def test_what_is_ruled_on_is_what_the_body_says(home: House) -> None:
    server = await home.server("inventory", "check", "reserve")
    denied = await post(home, call("inventory_reserve"), user="bob", **routed("inventory_reserve"))
    assert denied.json()["error"]["code"] == -32010
    for headers in (routed("inventory_check"), {}, {"mcp_name": "inventory_check"}):
        await post(home, call("inventory_reserve"), user="bob", **headers)
        await post(home, request("tools/call", {"name": "inventory_reserve", "arguments": {}}), user="bob", mcp_name="inventory_check")
    assert server.calls == []


async def test_the_reference_implementation_judges_every_envelope_as_we_do(home: House) -> None:
    await home.server("inventory", "check")
    versions = ["2026-07-28", "2025-11-25", "2099-01-01", ABSENT]
    bodies: list[Any] = [ABSENT, *[{META + "protocolVersion": v, META + "clientCapabilities": {}} for v in versions[:3]]]
    bodies += [
        {},
        5,
        None,
        [],
        {META + "protocolVersion": "2026-07-28"},
        {META + "clientCapabilities": {}},
        {META + "protocolVersion": 5, META + "clientCapabilities": {}},
    ]
    compared = 0
    for header, meta, method in itertools.product(versions, bodies, ["tools/list", "tools/call", "prompts/get", "no/such"]):
        params = {"name": "inventory_check", **({} if meta is ABSENT else {"_meta": meta})}
        modern = isinstance(meta, dict) and META + "protocolVersion" in meta
        if not modern and header in (ABSENT, "2025-11-25"):
            continue  # the legacy era, which has no such rules
        headers = {"mcp_method": method, "mcp_name": "inventory_check"} | ({} if header is ABSENT else {"mcp_protocol_version": header})
        document = request(method, params)
        ours = await post(home, document, **headers)
        theirs = classify_inbound_request(document, headers={name.replace("_", "-"): value for name, value in headers.items()})
        if isinstance(theirs, InboundLadderRejection):
            assert (ours.status_code, ours.json()["error"]["code"]) == (ERROR_CODE_HTTP_STATUS[theirs.code], theirs.code), (
                header,
                meta,
                method,
            )
            if theirs.data:
                assert ours.json()["error"]["data"] == {**theirs.data, "trace_id": TRACE}
        else:
            served = {"no/such": (404, True), "prompts/get": (200, True)}  # there is no prompt of that name
            assert (ours.status_code, "error" in ours.json()) == served.get(method, (200, False))
        compared += 1
    assert compared > 80


async def test_an_unknown_version_is_told_which_are_served(home: House) -> None:
    meta = {META + "protocolVersion": "2099-01-01", META + "clientCapabilities": {}}
    answer = await post(home, request("tools/list", {"_meta": meta}), **routed(method="tools/list", version="2099-01-01"))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == -32022
    assert answer.json()["error"]["data"] == {"supported": ["2026-07-28"], "requested": "2099-01-01", "trace_id": TRACE}


async def test_discovery_says_both_eras_and_that_lists_are_private(home: House) -> None:
    await home.server("inventory", "check")
    for path in ("/mcp", "/mcp/inventory"):
        found = (await post(home, request("server/discover", {"_meta": CAPABILITIES}), path, **routed(method="server/discover"))).json()[
            "result"
        ]
        assert found["supportedVersions"] == ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"]
        listed = (await post(home, request("tools/list", {"_meta": CAPABILITIES}), path, **routed(method="tools/list"))).json()["result"]
        for result in (found, listed):
            assert (result["resultType"], result["cacheScope"]) == ("complete", "private") and result["ttlMs"] >= 0


async def test_each_era_knows_its_own_methods(home: House) -> None:
    for method in ("ping", "initialize", "logging/setLevel", "resources/subscribe", "nonsense"):
        answer = await post(home, request(method, {"_meta": CAPABILITIES}), **routed(method=method))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601), method
    for method in ("server/discover", "subscriptions/listen", "nonsense"):
        answer = await post(home, request(method, {}))
        assert (answer.status_code, answer.json()["error"]["code"]) == (200, -32601), method  # 404 would end the session
    assert (await post(home, request("ping"))).json() == {"jsonrpc": "2.0", "id": 1, "result": {}}


async def test_older_versions_are_agreed_on_as_asked(home: House) -> None:
    for asked, agreed in {"2024-11-05": "2024-11-05", "2025-06-18": "2025-06-18", "2026-07-28": "2025-11-25", "1": "2025-11-25"}.items():
        answer = await post(home, request("initialize", LEGACY | {"protocolVersion": asked}))
        assert answer.json()["result"]["protocolVersion"] == agreed
    for odd in (ABSENT, {}, {"protocolVersion": 5}, [], None):
        assert (await post(home, request("initialize", odd))).status_code == 200


async def test_a_session_belongs_to_the_person_and_the_path_it_was_opened_by(home: House) -> None:
    await home.server("inventory", "check")
    mine = await session(home)
    assert (await post(home, request("tools/list"), mcp_session_id=mine)).status_code == 200
    strangers = [
        await post(home, request("tools/list"), user="bob", mcp_session_id=mine),
        await post(home, request("tools/list"), "/mcp/inventory", mcp_session_id=mine),
        await post(home, request("tools/list"), mcp_session_id="never-opened"),
        await post(home, request("tools/list"), mcp_session_id=""),
    ]
    assert {(answer.status_code, answer.content) for answer in strangers} == {(404, strangers[0].content)}
    headers = {"mcp-session-id": mine}
    foreign = await home.http.delete("/mcp", headers=headers | {"authorization": f"Bearer {home.token('bob')}"})
    assert foreign.status_code == 404
    assert (await post(home, request("ping"), mcp_session_id=mine)).status_code == 200
    own = headers | {"authorization": f"Bearer {home.token('alice')}"}
    assert (await home.http.delete("/mcp", headers=own)).status_code == 204
    assert (await home.http.delete("/mcp", headers=own)).status_code == 404
    assert (await post(home, request("ping"), mcp_session_id=mine)).status_code == 404


async def test_notifications_are_taken_and_streams_are_not_offered(home: House) -> None:
    notification = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    taken = await post(home, notification, mcp_session_id=await session(home))
    assert (taken.status_code, taken.content) == (202, b"")
    assert (await post(home, notification)).status_code == 202
    assert (await post(home, notification, mcp_protocol_version="2026-07-28")).status_code == 202
    unserved = await post(home, notification, mcp_protocol_version="2099-01-01")
    assert (unserved.status_code, unserved.json()["error"]["code"]) == (400, -32022)
    for method in ("GET", "HEAD", "PUT", "PATCH", "OPTIONS", "TRACE"):
        answer = await home.http.request(method, "/mcp", headers={"authorization": f"Bearer {home.token('alice')}"})
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST, GET, DELETE"), method


async def test_what_is_not_one_request_is_refused(home: House) -> None:
    ping = request("ping")
    bodies: list[Any] = [[ping], [ping, ping], [], 5, "ping", None, True, {}, {**ping, "jsonrpc": "1.0"}, {"id": 1, "method": "ping"}]
    bodies += [request("ping", request_id=odd) for odd in (None, True, 1.5, [], {})] + [
        {**ping, "method": odd} for odd in (5, None, ["ping"])
    ]
    bodies += [{"jsonrpc": "2.0", "id": 1, "result": {}}, {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "x"}}]
    for body in bodies:
        for headers in ({}, routed(method="ping")):
            answer = await post(home, body, **headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32600), body
    for request_id in ("", "a" * 1000, 0, -5, 2**63, 10**300, "größe"):
        assert (await post(home, request("ping", request_id=request_id))).json()["id"] == request_id


async def test_parameters_of_the_wrong_kind_are_refused_in_either_era(home: House) -> None:
    server = await home.server("inventory", "check")
    await home.agent(CallbackAgent("sales"))
    wrong: list[Any] = [
        {},
        {"name": 5},
        {"name": None},
        {"name": "inventory_check", "arguments": []},
        {"name": "inventory_check", "arguments": None},
    ]
    for params in [*wrong, [], None, "x", {"name": "inventory_check", "_meta": 5}, {"name": "inventory_check", "_meta": None}]:
        answer = await post(home, request("tools/call", params))
        assert (answer.status_code, answer.json()["error"]["code"]) == (200, -32602), params
    for params in wrong:
        name = params.get("name") if isinstance(params.get("name"), str) else ""
        headers = routed(name) if name else {key: value for key, value in routed().items() if key != "mcp_name"}
        answer = await post(home, request("tools/call", {**params, "_meta": CAPABILITIES}), **headers)
        assert answer.status_code == 400 and answer.json()["error"]["code"] in (-32602, -32020), params
    cursor = await post(home, request("tools/list", {"cursor": "MTA="}))
    assert cursor.json()["error"]["code"] == -32602
    assert server.calls == []


async def test_servers_and_agents_that_may_not_be_known_read_like_none(home: House) -> None:
    await home.server("inventory", "check")
    await home.server("waiting", "check", status=RegistrationStatus.PENDING)
    await home.agent(CallbackAgent("sales"))
    messages = {
        "initialize": request("initialize", LEGACY),
        "tools/list": request("tools/list"),
        "tools/call": request("tools/call", {"name": "check", "arguments": {}}),
        "no tool": request("tools/call", {"name": "nothing", "arguments": {}}),
    }
    for what, message in messages.items():
        answers = [await post(home, message, f"/mcp/{server}", "nora") for server in ("inventory", "waiting", "nothing", "sales")]
        assert {(answer.status_code, answer.content) for answer in answers} == {(404, answers[0].content)}, what
    modern = [
        await post(home, request(method, {"_meta": CAPABILITIES}), f"/mcp/{server}", "nora", **routed(method=method))
        for method in ("server/discover", "tools/list")
        for server in ("inventory", "nothing")
    ]
    assert {(answer.status_code, answer.content) for answer in modern} == {(404, modern[0].content)}
    called = [
        await post(home, call(name), user="nora", **routed(name))
        for name in ("inventory_check", "sales", "sales_quote", "nothing", "waiting_check")
    ]
    assert {(answer.status_code, answer.content) for answer in called} == {(called[0].status_code, called[0].content)}
    assert called[0].json()["error"]["code"] == -32602


async def test_an_agents_session_is_not_its_users(home: House) -> None:
    seen: list[int] = []
    mine = await session(home, "alice")

    async def act(token: str, text: str) -> str:
        onward = await home.exchanged("support", token, "/mcp", "tool:inventory.check")
        headers = {"authorization": f"Bearer {onward}", "mcp-session-id": mine}
        seen.append((await home.http.post("/mcp", json=request("ping"), headers=headers)).status_code)
        return "done"

    await home.server("inventory", "check")
    await home.agent(CallbackAgent("support", act))
    await home.send(home.token("alice"), "support", "go")
    assert seen == [404]


# attack PRO-05: an argument that travels as a header too
async def test_a_header_that_mirrors_an_argument_must_say_the_same(home: House) -> None:
    marks = {"region": {"type": "string", "x-mcp-header": "Region"}, "size": {"type": "integer", "x-mcp-header": "Size"}}
    schema = {
        "type": "object",
        "properties": {**marks, "place": {"type": "object", "properties": {"in": {"type": "boolean", "x-mcp-header": "In"}}}},
    }
    server = await home.server("depot", "ship", schema=schema)
    good = {"region": "größe", "size": 42, "place": {"in": True}}
    headers = routed("depot_ship") | {"mcp_param_region": wrapped("größe"), "mcp_param_size": "42", "mcp_param_in": "true"}
    fine = [
        (good, headers),
        (good | {"size": 42.0}, headers | {"mcp_param_size": "42.0"}),
        ({"region": None}, routed("depot_ship")),
        ({}, routed("depot_ship") | {"mcp_param_unknown": "x"}),
    ]
    for arguments, sent in fine:
        assert (await post(home, call("depot_ship", arguments=arguments), user="mel", **sent)).status_code == 200, sent
    assert len(server.calls) == len(fine)
    wrong = [
        (good, headers | {"mcp_param_region": "eu"}),
        (good, headers | {"mcp_param_size": "43"}),
        (good, headers | {"mcp_param_size": "4.2e1"}),
        (good, headers | {"mcp_param_in": "True"}),
        (good, {name: value for name, value in headers.items() if name != "mcp_param_in"}),
        ({name: value for name, value in good.items() if name != "region"}, headers),
        (good | {"region": {"a": 1}}, headers),
        (good | {"place": []}, headers),
        (good | {"size": True}, headers | {"mcp_param_size": "1"}),
    ]
    for arguments, sent in wrong:
        answer = await post(home, call("depot_ship", arguments=arguments), user="mel", **sent)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020), (arguments, sent)
        hidden = await post(home, call("depot_ship", arguments=arguments), user="nora", **sent)
        unknown = await post(home, call("nothing", arguments=arguments), user="nora", **sent | {"mcp_name": "nothing"})
        assert (hidden.status_code, hidden.content) == (unknown.status_code, unknown.content)
    assert len(server.calls) == len(fine)
    out = server.bytes[0].split(b"\n")
    assert b"mcp-param-size: 42" in out and b"mcp-param-in: true" in out
