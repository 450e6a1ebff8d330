"""The surface of administration: every route has a guard, and nobody passes it who may not."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx
import pytest
from sqlalchemy import select
from starlette.routing import Route

from gateway.ingress.a2a_server.bindings.grpc_methods import SERVICES, GrpcMethod
from gateway.ingress.a2a_server.bindings.rest_paths import _V03, _V1
from gateway.ingress.admin.api import RouteArea, TokenGuard, list_routes
from gateway.storage.tables import tasks as tasks_table
from tests.fakes.house import CallbackAgent, House

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
UNGUARDED: Final = {  # (methods, path) of the framework's routes without the guard -> what stands in its place
    "GET /": "leads browsers to the console, and says the same to everybody",
    "GET /.well-known/ai-catalog.json": "public: active agents of the default tenant",
    "GET /.well-known/jwks.json": "public keys",
    "GET /.well-known/authzen-configuration": "public metadata",
    "GET /.well-known/oauth-authorization-server": "public metadata",
    "GET /.well-known/oauth-protected-resource": "public metadata",
    "GET /.well-known/oauth-protected-resource/{path:path}": "public metadata",
    "GET /.well-known/oauth-client": "public metadata",
    "GET /.well-known/oauth-client-keys": "public metadata",
    "GET /connect/callback": "a state that was given to one browser, and its cookie",
    "GET /connect/{connection_id}": "says the same to everybody",
    "POST /connect/{connection_id}": "a token in the form, of the very person",
    "POST /api/events/sources/{name}": "the signature of the source (Standard Webhooks)",
    "POST /oauth/revoke": "the client authenticates itself, or shows the token that it gives up",
    "GET /oauth/authorize": "public: a page about a client, its redirect and what it asks for",
    "POST /oauth/consent": "what a page was signed with, the cookie of its browser, and no second use",
    "GET /oauth/callback/{provider}": "a state that was given to one browser, its cookie, and what the provider says",
    "GET /oauth/device": "public: a code that a command shows, at a limited rate",
    "POST /oauth/device": "public: a person approves in a browser, at a limited rate",
    "POST /oauth/register": "public: clients register themselves, bounded and at a limited rate",
    "POST /oauth/token": "the client authenticates itself",
    " /console": "a session of a browser (tests/gateway/ingress/console/test_sessions.py)",
    " /console/{path:path}": "a session of a browser; without one only its style and script, and the sign-in by a link",
    "GET /docs": "public: what there is, and nothing of what is kept",
    "GET /openapi.json": "public: what there is, and nothing of what is kept",
}
RAW: Final = {  # path -> its guard; gateway/server/router.py dispatches no others before the framework
    "/mcp": "a token",
    "/mcp/{name}": "a token",
    "/mcp/virtual/{name}": "a token",
    "/agents/{name}": "a token",
    "/agents/{name}/…": "a token, at every path of A2A over HTTP+JSON",
    "/agents/{name}/.well-known/agent-card.json": "public, where the card is",
    "/agents/{name}/notifications/{secret}": "a secret of one turn",
    "/.well-known/agent-card.json": "public: the gateway's own card",
    "/livez": "public: no more than names",
    "/readyz": "public: no more than names",
    "/metrics": "a token with audit:read",
}
OPEN: Final = {  # routes that answer anybody who is admitted -> why
    "list_agents": "what they may see",
    "list_servers": "what they may see",
    "list_virtual_servers": "what they may see",
    "whoami": "themselves",
    "list_sessions": "their own",
    "list_tasks": "their own",
    "list_refusals": "their own, without `everybody`",
    "list_connections": "their own",
    "create_console_link": "to a session of their own",
    "list_state": "the keys that they may read",
    "list_held_state": "values of keys that they may read or decide on",
    "list_approvals": "what they asked for, or may decide",
    "list_workflows": "what they may start",
    "show_workflow_schema": "the language of documents, and nothing of what is kept",
    "list_runs": "their own",
    "list_runs_of_workflow": "their own",
    "list_checkpoints": "what their own runs ask, or what they may decide",
    "checkpoint_events": "what became of what their own runs ask, or of what they may decide",
    "list_costs": "their own, without `everybody`",
    "list_budgets": "their own, without `everybody`",
    "estimate_cost": "of what they may call",
    "list_claims": "their own, without `everybody`",
    "list_conflicts": "their own, without `everybody`",
    "list_event_sources": "those of the types that they may receive",
    "list_console_sessions": "their own",
    "list_events": "those of the types that they may receive",
    "list_triggers": "of the workflows that they may start",
    "test_triggers": "of the workflows that they may start",
    "export_memory": "what is remembered of them",
    "erase_memory": "what is remembered of them",
    "ard_agents": "what they may see",
    "ard_search": "what they may see",
    "ard_explore": "what they may see",
    "access_evaluation": "people ask what they may themselves; of others only with a right to it",
    "access_evaluations": "people ask what they may themselves; of others only with a right to it",
    "register_agent": "anyone may offer; it waits for an operator",
    "register_server": "anyone may offer; it waits for an operator",
    "preview_agent": "whoever may offer sees before what they would offer",
    "preview_server": "whoever may offer sees before what they would offer",
}
FLOW: Final = "document: {dsl: 1.0.3, namespace: n, name: flow, version: 1.0.0}\ndo:\n- a: {set: {b: 1}}\n"
BODIES: Final[Mapping[str, Any]] = {  # where an empty object would be refused before anybody asks for rights
    "register_virtual_server": {"name": "other", "tools": ["crm.*"]},
    "kill": {"kind": "agent", "name": "sales"},
    "place_hold": {"kind": "tenant"},
    "decide_approval": {"decision": "approve"},
    "decide_held_state": {"decision": "drop"},
    "take_claim": {"subject": "customer:42"},
    "renew_claim": {"token": 1},
    "add_workflow": {"document": FLOW},
    "start_run": {"workflow": "nowhere"},
    "start_run_of_workflow": {},
    "answer_checkpoint": {"value": 1},
    "relax_checkpoint": {"step": "/do/0/look", "every": 2},
    "signal_run": {"name": "arrived"},
    "fork_run": {"step": "first"},
    "send_events": {"specversion": "1.0", "id": "1", "source": "s", "type": "test.paid"},
    "test_triggers": {"specversion": "1.0", "id": "1", "source": "s", "type": "test.paid"},
    "put_fact": {"text": "SKU"},
    "quarantine_memory": {"agent": "liar"},
    "ard_search": {"query": {"text": "quote"}},
    "ard_explore": {"query": {"text": "quote"}, "resultType": {"facets": [{"field": "tags"}]}},
    "evaluate_draft": {
        "subject": {"type": "user", "id": "x"},
        "action": {"name": "callTool"},
        "resource": {"type": "tool", "id": "inventory.check"},
        "policies": {},
    },
}


def framework(home: House) -> Iterator[Route]:
    """Every route of the framework, hidden ones too."""
    return list_routes(application(home).framework)


def application(home: House) -> Any:
    return home.app._handlers.framework.load()  # type: ignore[attr-defined]  # the framework's own list


async def test_every_route_lies_below_the_path_of_its_area(home: House) -> None:
    areas = [route for route in application(home).framework.routes if isinstance(route, RouteArea)]
    assert len(areas) > 20
    for area in areas:
        assert area.routes, area.path
        assert not [route for route in area.routes if isinstance(route, Route) and not f"{route.path}/".startswith(f"{area.path}/")]


def guarded(route: Route) -> bool:
    needs = getattr(getattr(route, "dependant", None), "dependencies", [])
    return any(isinstance(each.call, TokenGuard) for each in needs)


def named(route: Route) -> str:
    return f"{' '.join(sorted(route.methods or ()))} {route.path}"


async def test_every_route_has_a_guard_or_a_reason(home: House) -> None:
    """attack ADM-01: a route that nobody thought about fails here"""
    routes = list(framework(home))
    assert len(routes) > 40
    assert {named(route) for route in routes if not guarded(route)} == set(UNGUARDED)


async def test_every_direct_route_is_a_route_that_the_framework_has_too(home: House) -> None:
    """attack ADM-01: a direct route without a description, or past the guard of its route, fails here"""
    routes = {named(route): route for route in framework(home)}
    direct_routes = application(home).direct_routes.values()
    assert len(direct_routes) == 2
    for each in direct_routes:
        route = routes[f"{each.method} {each.path}"]
        answer = await home.http.request(each.method, each.path.format(name="crm"), json={})
        assert answer.status_code == (401 if guarded(route) else 404)


async def test_every_path_before_the_framework_wants_a_token_or_is_public(home: House) -> None:
    """attack ADM-01"""
    await home.agent(CallbackAgent("sales"))
    below = [(verb, pattern.pattern) for pattern, verbs in [*_V1, *_V03] for verb in verbs]
    assert len(below) > 20
    for prefix in ("", "/v1"):
        for verb, pattern in below:
            path = f"/agents/sales{prefix}" + re.sub(r"\(\?P<.*?>\[.*?\]\+\)", "x", pattern)
            answer = await home.http.request(verb, path, headers={"A2A-Version": "1.0"}, json={} if verb == "POST" else None)
            assert answer.status_code == 401 or (answer.status_code == 404 and "sales" not in answer.text), (verb, path, answer.text)
    posted = await home.http.post("/agents/sales/notifications/a-guess", json={})
    assert posted.status_code in (401, 403, 404), posted.text
    assert set(RAW) and all(RAW.values())


def test_every_method_of_grpc_names_its_operation(database_url: str) -> None:
    """attack ADM-01: a method is served by an operation, which admits its caller first (test_grpc_server.py)"""
    for service in SERVICES:
        assert len(service.methods) >= 9, service
        assert all(isinstance(method, GrpcMethod) for method in service.methods.values())


async def furnished(home: House) -> dict[str, str]:
    """Something of every kind in the tenant; the values that fill in paths."""
    built = await home.agent(CallbackAgent("sales"))
    assert built.name == "sales"
    await home.server("inventory", "check")
    await home.gateway.database.refresh_epochs()
    sent = await home.send(home.token("alice"), "sales", "hello")
    task = sent["result"]["task"]["id"]
    query = select(tasks_table).where(tasks_table.c.id == task)
    row = (await home.gateway.database.read(lambda connection: connection.execute(query).all()))[0]
    admin = {"authorization": f"Bearer {home.token('admin')}"}
    made = await home.http.post("/api/virtual-servers", json={"name": "front", "tools": ["inventory.*"]}, headers=admin)
    assert made.status_code == 201, made.text
    return {"task_id": task, "decision_id": row.decision_id, "grant_id": row.grant_id, "letter_id": "x", "seq": "1"}


def filled(route: Route, values: Mapping[str, str]) -> str:
    kind = route.path.split("/")[2] if route.path.count("/") > 1 else ""
    name = {
        "agents": "sales",
        "servers": "inventory",
        "virtual-servers": "front",
        "workflows": "flow",
        "triggers": "flow",
        "subjects": "customer:42",
    }.get(kind, "x")
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: values.get(found[1], name), route.path)


async def asked(home: House, route: Route, values: Mapping[str, str], authorization: str) -> httpx.Response:
    method = min(route.methods or {"GET"})
    body = BODIES.get(route.name, {}) if method in ("POST", "PATCH", "PUT") else None
    headers = {"if-match": "*"} | ({"authorization": authorization} if authorization else {})
    return await home.http.request(method, filled(route, values), json=body, headers=headers)


async def test_nobody_administers_without_a_right(home: House) -> None:
    """attack ADM-01: no token; a user without the right; another tenant's operator; an agent's own credential; a hop token"""
    values = await furnished(home)
    client, secret = home.secrets["sales"]
    basic = httpx.BasicAuth(client, secret)._auth_header
    strangers = {"anonymous": "", "agent's secret": basic, "agent's secret as a token": f"Bearer {secret}"}
    known = {"user": home.token("nora"), "other tenant": home.token("admin", tenant="evil"), "narrowed": home.token("admin", "agent:x")}
    for route in (route for route in framework(home) if guarded(route)):
        for who, authorization in strangers.items():
            answer = await asked(home, route, values, authorization)
            assert answer.status_code == 401, (named(route), who, answer.status_code)
        for who, token in known.items():
            answer = await asked(home, route, values, f"Bearer {token}")
            if route.name in OPEN:
                assert "SKU" not in answer.text and values["task_id"] not in answer.text, (named(route), who)
                continue
            if who == "other tenant" and answer.status_code < 300:  # an operator there, of what is there
                assert not any(
                    value in answer.text for value in (values["task_id"], values["decision_id"], values["grant_id"], "inventory")
                )
            elif who != "narrowed" or route.name != "show_virtual_server":  # a person reads what they registered with any token of theirs
                nothing_there = who == "other tenant" and answer.status_code == 412  # a value of the board of that tenant
                assert answer.status_code in (403, 404) or nothing_there, (named(route), who, answer.status_code, answer.text)


async def test_a_token_of_a_task_administers_nothing_while_it_runs(home: House) -> None:
    """attack ADM-01, DLG-16: neither what an agent was handed for an operator's errand, nor what it exchanged that for"""
    values, answers = await furnished(home), {}

    async def act(token: str, _text: str) -> str:
        onward = await home.exchanged("clerk", token, "/mcp", "tool:inventory.check")
        for route in (route for route in framework(home) if guarded(route)):
            for held in (token, onward):
                answers[named(route), held] = (await asked(home, route, values, f"Bearer {held}")).status_code
        return "done"

    await home.agent(CallbackAgent("clerk", act))
    await home.send(home.token("admin"), "clerk", "hello")
    assert len(answers) > 60 and set(answers.values()) == {401}, answers


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/livez", "raw"),
        ("/agents/sales", "raw"),
        ("/mcp", "raw"),
        ("/api/agents", "api"),
        ("/nothing", "api"),
        ("/.well-known/jwks.json", "api"),
    ],
)
async def test_a_browser_makes_nothing_of_an_answer(home: House, path: str, kind: str) -> None:
    """attack ADM-01: no script, no frame, no guess at its kind"""
    answer = await home.http.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert kind == "raw" or "cache-control" in answer.headers


async def test_a_page_keeps_its_own_policy(home: House) -> None:
    page = await home.http.get("/connect/x")
    assert len(page.headers.get_list("content-security-policy")) == 1 and "form-action 'self'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store"
    docs = await home.http.get("/docs")
    assert docs.status_code == 200 and "style-src 'sha256-" in docs.headers["content-security-policy"]


@pytest.mark.parametrize("headers", [{"host": "evil.example"}, {"origin": "https://evil.example"}])
async def test_another_host_or_origin_is_refused_at_every_route(home: House, headers: dict[str, str]) -> None:
    """attack ADM-01, PRO-10"""
    values = await furnished(home)
    token = {"authorization": f"Bearer {home.token('admin')}"}
    for route in framework(home):
        if "origin" in headers and (route.path.startswith("/.well-known/") or route.path in ("/oauth/token", "/oauth/register")):
            continue  # for pages of anybody, without cookies
        answer = await home.http.request(min(route.methods or {"GET"}), filled(route, values), headers={**token, **headers})
        assert answer.status_code in (403, 421), (named(route), answer.status_code)


async def test_a_path_or_a_method_that_is_not_served_has_a_documented_reason(home: House) -> None:
    for method, path, status, reason in (("GET", "/nothing", 404, "unknown-path"), ("DELETE", "/docs", 405, "wrong-verb")):
        answer = await home.http.request(method, path)
        assert (answer.status_code, answer.json()["reason_id"]) == (status, reason)
