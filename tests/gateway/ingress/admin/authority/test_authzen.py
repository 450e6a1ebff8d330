"""/access/v1: AuthZEN 1.0 through the front door."""

from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from gateway.audit.decisions import READ_AUDIT
from policies.tables import audit_records, grants
from tests.fakes.house import CallbackAgent, House

ONE, SEVERAL = "/access/v1/evaluation", "/access/v1/evaluations"


def question(subject: str = "alice", tool: str = "inventory.reserve", **context: Any) -> dict[str, Any]:
    asked = {"subject": {"type": "user", "id": subject}, "action": {"name": "callTool"}, "resource": {"type": "tool", "id": tool}}
    return {**asked, **({"context": context} if context else {})}


async def ask(home: House, user: str, body: Any, path: str = ONE, token: str = "", **headers: str) -> httpx.Response:
    return await home.http.post(path, json=body, headers={"authorization": f"Bearer {token or home.token(user)}", **headers})


@pytest.fixture
async def shop(home: House) -> House:
    await home.server("inventory", "check", "reserve")
    return home


async def test_people_ask_for_themselves_and_hear_why(shop: House) -> None:
    allowed = (await ask(shop, "alice", question())).json()
    assert (allowed["decision"], allowed["context"]["reason_id"], allowed["context"]["policies"]) == (True, "allowed", ["role:sales"])
    denied = (await ask(shop, "bob", question("bob"))).json()
    assert (denied["decision"], denied["context"]["missing"]) == (False, ["tool:inventory.reserve (user)"])
    full = (await ask(shop, "bob", question("default|interlock-development|bob", "inventory.check"))).json()
    assert full["decision"]


async def test_what_is_asked_leaves_no_grant_and_no_decision(shop: House) -> None:
    async def count() -> list[int]:
        tables = (audit_records, grants)
        return [
            await shop.gateway.database.read(lambda c, t=table: c.execute(select(func.count()).select_from(t)).scalar_one())
            for table in tables
        ]

    before = await count()
    await ask(shop, "alice", question())
    await ask(shop, "bob", question("bob"))
    assert await count() == before


async def test_the_answer_is_what_the_call_comes_to(shop: House) -> None:
    for user, tool in (("alice", "reserve"), ("bob", "reserve"), ("bob", "check"), ("nora", "check")):
        said = (await ask(shop, user, question(user, f"inventory.{tool}"))).json()["decision"]
        assert said == ("result" in (await shop.call(shop.token(user), "/mcp/inventory", tool, {})).json()), (user, tool)


async def test_a_token_that_was_narrowed_narrows_the_answer(shop: House) -> None:
    answer = (await ask(shop, "", question(), token=shop.token("alice", scope="tool:inventory.check"))).json()
    assert (answer["decision"], answer["context"]["reason_id"]) == (False, "scope-missing")


async def test_for_others_ask_those_who_read_the_audit_and_it_is_kept_that_they_did(shop: House) -> None:  # attack TEN-01
    for user, body in (("bob", question("alice")), ("bob", question("bob", chain=["x"])), ("bob", question("bob", scopes=["*"]))):
        refused = await ask(shop, user, body)
        assert (refused.status_code, refused.json()["reason_id"]) == (403, "user-lacks-permission"), body
    own_roles = {**question("bob"), "subject": {"type": "user", "id": "bob", "properties": {"roles": ["operator"]}}}
    assert (await ask(shop, "bob", own_roles)).status_code == 403
    answer = (await ask(shop, "admin", question("bob"))).json()
    assert (answer["decision"], answer["context"]["reason_id"]) == (False, "user-lacks-permission")
    assert (await ask(shop, "admin", question("alice"))).json()["decision"]
    query = select(audit_records.c.body).where(audit_records.c.kind == "decision")
    bodies = await shop.gateway.database.read(lambda connection: list(connection.execute(query).scalars()))
    assert sum(READ_AUDIT.permission in body and '"allowed":true' in body for body in bodies) == 2


async def test_operators_suppose_roles_scopes_and_chains(shop: House) -> None:
    await shop.agent(CallbackAgent("support"), ceiling=("tool:inventory.check",))
    stranger = {**question(), "subject": {"type": "user", "id": "default|https://idp|zoe", "properties": {"roles": ["sales"]}}}
    assert (await ask(shop, "admin", stranger)).json()["decision"]
    through = (await ask(shop, "admin", question("alice", chain=["support"]))).json()
    assert (through["decision"], through["context"]["reason_id"]) == (False, "ceiling-exceeded")
    assert through["context"]["chain"] == [{"agent": "support", "permissions": ["tool:inventory.check"]}]
    assert (await ask(shop, "admin", question("alice", scopes=["agent:*"]))).json()["context"]["reason_id"] == "scope-missing"
    assert (await ask(shop, "admin", question("alice", chain=["nobody"]))).json()["context"]["error"]["status"] == 404


async def test_what_does_not_exist_and_what_may_not_be_known_are_one_answer(shop: House) -> None:
    hidden = (await ask(shop, "nora", question("nora"))).json()
    assert hidden == {"decision": False, "context": {"error": {"status": 404, "message": "There is no such subject or resource."}}}
    assert (await ask(shop, "nora", question("nora", "nothing.there"))).json() == hidden
    assert (await ask(shop, "admin", question("evil|https://idp|mallory"))).json() == hidden
    assert (await ask(shop, "alice", question("alice", "inventory.nothing"))).json() == hidden


async def test_several_at_once_take_defaults_from_the_whole_and_stop_where_it_is_said(shop: House) -> None:
    tools = [{"resource": {"type": "tool", "id": f"inventory.{name}"}} for name in ("check", "reserve", "check")]
    whole = {**question("bob"), "evaluations": [*tools, {"action": {"name": "fly"}}]}

    async def decisions(semantic: str | None) -> list[bool]:
        options = {} if semantic is None else {"options": {"evaluations_semantic": semantic}}
        answer = (await ask(shop, "bob", {**whole, **options}, SEVERAL)).json()
        return [one["decision"] for one in answer["evaluations"]]

    assert await decisions(None) == await decisions("execute_all") == [True, False, True, False]
    assert await decisions("deny_on_first_deny") == [True, False]
    assert await decisions("permit_on_first_permit") == [True]
    odd = (await ask(shop, "bob", whole, SEVERAL)).json()["evaluations"][3]["context"]["error"]
    assert odd["status"] == 400 and "fly" in odd["message"]
    assert (await ask(shop, "bob", question("bob", "inventory.check"), SEVERAL)).json()["decision"] is True


ODD: list[Any] = [
    [],
    {},
    {"subject": {"type": "user"}},
    {**question(), "subject": {"type": "agent", "id": "sales"}},
    {**question(), "subject": "alice"},
    {**question(), "action": {"name": "fly"}},
    {**question(), "resource": {"type": "car", "id": "x"}},
    {**question(), "resource": {"type": "tool", "id": "*"}},
    {**question(), "context": []},
    question(arguments=3),
    question(chain="sales"),
    question(scopes=["nonsense"]),
]
ROUNDS: list[dict[str, Any]] = [
    {"options": {"evaluations_semantic": "maybe"}},
    {"options": 3},
    {"evaluations": [3]},
    {"evaluations": [{}] * 101},
    {"evaluations": {"a": 1}},
]


async def test_what_is_no_question_is_a_bad_request(shop: House) -> None:
    for body in ODD:
        answer = await ask(shop, "admin", body, **{"x-request-id": "r-7"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (400, "r-7"), body
    for odd in ROUNDS:
        assert (await ask(shop, "alice", {**question(), "evaluations": [{}], **odd}, SEVERAL)).status_code == 400, odd


async def test_the_callers_id_of_a_request_comes_back_with_every_answer(shop: House) -> None:
    given = {"x-request-id": "bfe9eb29-ab87-4ca3-be83-a1d5d8305716"}
    for user, body in (("alice", question()), ("bob", question("alice"))):
        assert (await ask(shop, user, body, **given)).headers["x-request-id"] == given["x-request-id"]
    stranger = await shop.http.post(ONE, json=question(), headers=given)
    assert (stranger.status_code, stranger.headers["x-request-id"]) == (401, given["x-request-id"])
    assert "x-request-id" not in (await ask(shop, "alice", question())).headers


async def test_discovery_names_both_endpoints(shop: House) -> None:
    answer = await shop.http.get("/.well-known/authzen-configuration")
    assert answer.json() == {
        "policy_decision_point": shop.url,
        "access_evaluation_endpoint": shop.url + ONE,
        "access_evaluations_endpoint": shop.url + SEVERAL,
    }
