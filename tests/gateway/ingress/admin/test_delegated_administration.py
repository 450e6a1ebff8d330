"""Administration through an agent: refused at every route, whatever the person may do themselves, and every refusal is recorded."""

import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from sqlalchemy import Connection, select
from starlette.routing import Route

from gateway.storage import tables
from policies import tables as rights
from registry import tables as registry
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.issuer import FakeIssuer, serving
from tests.gateway.behaviour.authority.test_tickets import TicketAgent, basic
from tests.gateway.ingress.admin.test_route_guards import BODIES, FLOW, UNGUARDED, filled, framework, guarded, named
from tests.gateway.ingress.oauth.test_id_jag import GRANT, TYPE

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
REASON: Final = "delegated-administration"
OPEN: Final = {  # routes that an agent may use on behalf of a person -> what it gets there
    "whoami": "who it is to the gateway, and for whom it acts",
    "list_budgets": "what is left for the person that it acts for",
    "estimate_cost": "of a call that it may make; it names none here",
    "list_agents": "the agents that it may call",
    "show_agent": "an agent that it may call",
    "agent_card": "the card of an agent that it may call",
    "list_servers": "the servers that it may call",
    "show_server": "a server that it may call",
    "list_virtual_servers": "the virtual servers that it may use",
    "show_virtual_server": "a virtual server that it may use",
    "list_tasks": "the tasks that its own task caused",
    "show_task": "a task that its own task caused",
    "task_events": "the events of a task that its own task caused",
    "task_trace": "the trace of a task that its own task caused",
    "cancel_task": "a task that its own task caused",
    "show_decision": "a decision of its own transaction",
    "list_refusals": "refusals of its own transaction",
    "list_approvals": "what its own errand waits for",
    "show_approval": "what its own errand waits for",
    "list_workflows": "the workflows that it may start",
    "show_workflow_schema": "the language of documents",
    "draw_workflow": "as `show_workflow`",
    "show_workflow": "a workflow that it may start",
    "start_run": "a run of a workflow that it may start, below its own task",
    "start_run_of_workflow": "a run of a workflow that it may start, below its own task",
    "list_runs": "no runs: those that it started are tasks of its own",
    "list_runs_of_workflow": "no runs: those that it started are tasks of its own",
    "show_run": "a run that its own task caused",
    "draw_run": "a run that its own task caused",
    "cancel_run": "a run that its own task caused",
    "run_events": "the events of a run that its own task caused",
    "run_value": "a value of a run that its own task caused",
    "estimate_workflow": "figures of a workflow that it may start",
    "list_checkpoints": "no questions, which are for people",
    "checkpoint_events": "no questions, which are for people",
    "list_state": "the keys that it may read",
    "get_state": "a value that it may read",
    "set_state": "a value that it may write",
    "patch_state": "a value that it may write",
    "delete_state": "a value that it may write",
    "list_held_state": "no values, which are for people",
    "list_costs": "what its own transaction has cost",
    "take_claim": "a claim of its own task",
    "renew_claim": "a claim of its own task",
    "release_claim": "a claim of its own task",
    "list_claims": "claims of its person",
    "list_conflicts": "conflicts of its person",
    "show_subject": "what it may read of a subject",
    "list_event_sources": "no events, which are for people",
    "list_events": "no events, which are for people",
    "list_triggers": "of workflows that it may start",
    "test_triggers": "of workflows that it may start",
    "put_fact": "a fact of the person that it acts for, as far as its entry lets it use memory",
    "find_facts": "facts of the person that it acts for",
    "show_fact": "a fact of the person that it acts for",
    "correct_fact": "a fact that an agent wrote",
    "forget_fact": "a fact that an agent wrote",
    "show_context": "the conversation that it works in",
    "ard_agents": "the agents that it may call",
    "ard_search": "the agents that it may call",
    "ard_explore": "the agents that it may call",
    "access_evaluation": "what it may do itself; not what others may",
    "access_evaluations": "what it may do itself; not what others may",
}
OPERATORS_ALONE: Final = ("client_id", "trusted_keys", "drift", "withheld")  # members of an entry
KEPT: Final = (
    *(registry.registrations, registry.cards, rights.kills, rights.approvals, rights.approval_votes),
    *(rights.vault_credentials, rights.vault_clients, tables.connections),
)
CHECK: Final = {"action": {"name": "callTool"}, "resource": {"type": "tool", "id": "inventory.check"}}
BOB: Final = {**CHECK, "subject": {"type": "user", "id": "bob"}}
OWN: Final = {**CHECK, "subject": {"type": "user", "id": "admin"}}
GIVEN: Final[dict[str, Any]] = {  # bodies of routes that refuse an empty one before they look at rights
    **BODIES,
    "register_agent": {"name": "more"},
    "register_server": {"name": "more"},
    "preview_agent": {"name": "more"},
    "preview_server": {"name": "more"},
    "access_evaluation": OWN,
    "access_evaluations": OWN,
}
DOCUMENT: Final = {
    "openapi": "3.1.0",
    "info": {"title": "Mine", "version": "1"},
    "servers": [{"url": "https://93.184.215.14/"}],
    "paths": {"/a": {"get": {"operationId": "a", "responses": {"200": {"description": "fine"}}}}},
}
ASKING: Final = '@id("asked") @ask("A second person looks") forbid(principal, action, resource == Tool::"inventory.reserve");'


@pytest.fixture
def issuer() -> Iterator[FakeIssuer]:
    with serving(FakeIssuer(now=time.time)) as served:
        yield served


@pytest.fixture
async def home(tmp_path: Path, database_url: str, issuer: FakeIssuer) -> AsyncIterator[House]:
    """With an agent and a server, a kill, an approval that waits, and a task of the operator's own."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "ours.cedar").write_text(ASKING)
    trusted = {"issuer": issuer.url, "jwks_url": issuer.jwks_url, "id_jag": True}
    identity = {"development": "on", "issuers": [trusted]}
    async with house(tmp_path / "home", database_url, identity=identity, policies=str(tmp_path / "rules")) as built:
        await built.agent(CallbackAgent("sales"))
        await built.agent(CallbackAgent("idle"))
        await built.server("inventory", "check", "reserve")
        yield built


async def furnished(home: House) -> dict[str, str]:
    """The values that fill in the paths of routes."""
    admin = {"authorization": f"Bearer {home.token('admin')}"}
    task = (await home.send(home.token("admin"), "sales", "hello"))["result"]["task"]["id"]
    shown = (await home.http.get(f"/api/tasks/{task}", headers=admin)).json()
    assert (await home.http.post("/api/workflows", json={"document": FLOW}, headers=admin)).status_code == 201
    assert (await home.http.put("/api/state/x", json={}, headers=admin)).status_code == 201
    made = await home.http.post("/api/virtual-servers", json={"name": "front", "tools": ["inventory.*"]}, headers=admin)
    kill = await home.http.post("/api/kill", json={"kind": "agent", "name": "idle"}, headers=admin)
    asked = (await home.call(home.token("alice"), "/mcp", "inventory_reserve", {})).json()
    assert (made.status_code, kill.status_code) == (201, 201)
    approval = asked["error"]["data"]["approval"]["id"]
    return {
        **{name: shown[name] for name in ("decision_id", "grant_id")},
        "task_id": task,
        "kill_id": kill.json()["id"],
        "approval_id": approval,
        "seq": "1",
    }


async def asked(home: House, route: Route, values: dict[str, str], headers: dict[str, str]) -> httpx.Response:
    method = min(route.methods or {"GET"})
    body = GIVEN.get(route.name, {}) if method in ("POST", "PATCH", "PUT") else None
    return await home.http.request(method, filled(route, values), json=body, headers={"if-match": "*", **headers})


async def kept(home: House) -> str:
    """All rows that administration changes."""

    def read(connection: Connection) -> list[Any]:
        return [[tuple(row) for row in connection.execute(select(table)).all()] for table in KEPT]

    return repr(await home.gateway.database.read(read))


async def refusals(home: House) -> list[dict[str, Any]]:
    """The audit's records of delegated administration."""
    query = select(rights.audit_records.c.body).where(rights.audit_records.c.kind == "decision")
    bodies = await home.gateway.database.read(lambda connection: connection.execute(query).scalars().all())
    return [record for record in map(json.loads, bodies) if record["reason_id"] == REASON]


async def ticket(home: House, user: str = "admin") -> dict[str, str]:
    """What opens /api to an agent that works on a task of `user`. The task goes on until the agent is done, which it is not."""
    shown: dict[str, str] = {}

    async def clerk(handed: dict[str, str]) -> str:
        shown.update({**handed, **basic(home, "clerk")})
        return "done"

    agent = TicketAgent("clerk", clerk)
    agent.state = "TASK_STATE_INPUT_REQUIRED"
    await home.agent(agent, delegation="ticket", memory="write")
    await home.send(home.token(user), "clerk", "look after it")
    return shown


async def assertion(home: House, issuer: FakeIssuer) -> dict[str, str]:
    """A token for the whole gateway that an agent got for an operator by an identity assertion."""
    await home.agent(CallbackAgent("clerk"), memory="write")
    claims = {"aud": home.url, "client_id": home.secrets["clerk"][0], "sub": "admin", "roles": ["operator"], "exp": int(time.time()) + 300}
    form = {"grant_type": GRANT, "assertion": issuer.mint(TYPE, **claims), "resource": home.url, "scope": "*"}
    given = await home.http.post("/oauth/token", data=form, auth=home.secrets["clerk"])
    assert given.status_code == 200, given.text
    return {"authorization": f"Bearer {given.json()['access_token']}"}


# attack DLG-16
@pytest.mark.parametrize("way", ["ticket", "identity assertion"])
async def test_no_route_administers_for_an_agent(home: House, issuer: FakeIssuer, way: str) -> None:
    values = await furnished(home)
    headers = await ticket(home) if way == "ticket" else await assertion(home, issuer)
    routes, before = [route for route in framework(home) if guarded(route)], await kept(home)
    answers = {route.name: await asked(home, route, values, headers) for route in routes}
    assert len(routes) > 40 and set(OPEN) <= set(answers)
    for name, answer in answers.items():
        if name in OPEN:
            is_allowed = REASON not in answer.text or name == "list_refusals"  # which lists those that came before it
            assert answer.status_code in ((422,) if name == "estimate_cost" else (200, 201, 404)) and is_allowed, (name, answer.text)
            hidden = [member for member in OPERATORS_ALONE if (name, member) != ("whoami", "client_id")]  # there it is the agent's own
            assert not any(f'"{member}"' in answer.text for member in hidden), (name, answer.text)
        else:
            assert (answer.status_code, answer.json().get("reason_id")) == (403, REASON), (name, answer.text)
    assert await kept(home) == before
    recorded = await refusals(home)
    assert len(recorded) == len(answers) - len(OPEN)
    assert all(link["agent"] == "clerk" for record in recorded for link in record["path"])


async def test_the_same_routes_are_open_to_the_operator(home: House) -> None:
    """Else the test above would hold because nothing was there to be administered."""
    values = await furnished(home)
    headers = {"authorization": f"Bearer {home.token('admin')}"}
    for route in framework(home):
        if guarded(route) and route.name not in OPEN:
            answer = await asked(home, route, values, headers)
            assert answer.status_code not in (401, 403), (named(route), answer.text)


# attack DLG-16
async def test_routes_without_the_guard_administer_nothing_for_an_agent(home: House) -> None:
    values, headers = await furnished(home), await ticket(home)
    before = await kept(home)
    for route in framework(home):
        if not guarded(route) and not route.path.startswith(("/.well-known/", "/docs", "/openapi")):
            answer = await asked(home, route, values, headers)
            assert named(route) in UNGUARDED and answer.status_code in (200, 400, 401, 403, 404), (named(route), answer.text)
    assert (await home.http.get("/metrics", headers=headers)).status_code == 403
    assert await kept(home) == before


# attack DLG-16
async def test_an_agent_offers_changes_and_removes_nothing_that_is_its_persons_own(home: House) -> None:
    mine = {"authorization": f"Bearer {home.token('alice')}"}
    offered = await home.http.post("/api/servers", json={"name": "mine", "openapi": DOCUMENT}, headers=mine)
    assert (offered.status_code, offered.json()["status"]) == (201, "pending"), offered.text
    headers, before = await ticket(home, "alice"), await kept(home)
    tries = [
        ("POST", "/api/servers", {"name": "more", "openapi": DOCUMENT}),
        ("POST", "/api/agents", {"card": {}, "name": "more"}),
        ("PATCH", "/api/servers/mine", {"url": "https://93.184.215.14/"}),
        ("DELETE", "/api/servers/mine", None),
    ]
    for method, path, body in tries:
        refused = await home.http.request(method, path, json=body, headers=headers)
        assert refused.status_code in (403, 404), (method, path, refused.text)
    assert (await home.http.get("/api/servers/mine", headers=headers)).status_code == 404
    assert (await home.http.get("/api/servers/mine", headers=mine)).status_code == 200
    assert await kept(home) == before


# attack DLG-16
async def test_an_agent_asks_what_it_may_itself_and_not_what_others_may(home: House) -> None:
    headers = await ticket(home)
    assert (await home.http.post("/access/v1/evaluation", json=OWN, headers=headers)).json()["decision"] is True
    for about in (BOB, {**OWN, "context": {"chain": []}}, {**OWN, "context": {"scopes": ["*"]}}):
        refused = await home.http.post("/access/v1/evaluation", json=about, headers=headers)
        assert (refused.status_code, refused.json()["reason_id"]) == (403, REASON), refused.text
    writes = {**OWN, "action": {"name": "registerAgent"}, "resource": {"type": "key", "id": "write"}}
    told = (await home.http.post("/access/v1/evaluation", json=writes, headers=headers)).json()
    assert (told["decision"], told["context"]["reason_id"]) == (False, REASON)


async def test_an_agent_reads_the_decisions_of_its_own_transaction_and_no_others(home: House) -> None:
    values, headers = await furnished(home), await ticket(home)
    query = (
        select(rights.audit_records.c.decision_id)
        .where(rights.audit_records.c.kind == "decision")
        .order_by(rights.audit_records.c.seq.desc())
    )
    own = await home.gateway.database.read(lambda connection: connection.execute(query).scalar())
    assert (await home.http.get(f"/api/decisions/{own}", headers=headers)).status_code == 200
    assert (await home.http.get(f"/api/decisions/{values['decision_id']}", headers=headers)).status_code == 404


async def test_an_agent_sees_the_refusals_of_its_own_transaction_only(home: House) -> None:
    await furnished(home)
    refused = await home.call(home.token("bob"), "/mcp/inventory", "reserve", {})
    assert refused.json()["error"]["data"]["decision_id"]
    headers = await ticket(home, user="bob")
    assert (await home.http.get("/api/decisions", headers=headers)).json() == {"items": [], "next": None}
