"""Who there is: searched over /api, published as a catalog, and found by way of ARD; nobody finds what they may not see."""

from typing import Any

import pytest

from registry.cards.card import RegistrationStatus
from tests.fakes.cards import card
from tests.fakes.house import URL, House
from tests.fakes.patience import cpu_seconds
from tests.fakes.reception import Reception

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

ELSEWHERE = "https://93.184.215.14/"  # public, and never called
SCOPES = {"agent:sales": ["sales"], "agent:*": ["sales", "travel"], "tool:*": []}


def skill(name: str, *tags: str) -> dict[str, Any]:
    return {"id": name.lower().replace(" ", "-"), "name": name, "description": f"{name}.", "tags": list(tags)}


@pytest.fixture
async def desk(home: House) -> Reception:
    desk = Reception(home)
    cards = {
        "sales": {"name": "Sales", "description": "Takes orders.", "skills": [skill("Make quote", "sales"), skill("Refund", "sales")]},
        "travel": {"name": "Travel", "description": "Books; quotes hotels.", "skills": [skill("Book flight", "travel")]},
        "secret": {"name": "Secret", "description": "Quotes in secret.", "skills": [skill("Make quote", "hidden")]},
    }
    for name, members in cards.items():
        await desk.post("/api/agents", card=card(ELSEWHERE, "1.0") | members, name=name)
    await home.gateway.registry.set_status("default", "secret", RegistrationStatus.QUARANTINED)
    await desk.ask("POST", "/api/agents", "admin", {"card": card(ELSEWHERE, "1.0") | cards["sales"], "name": "acmes"}, tenant="acme")
    return desk


async def names(desk: Reception, query: str, user: str = "alice", **token: Any) -> list[str]:
    answer = await desk.ask("GET", f"/api/agents?{query}", user, **token)
    assert answer.status_code == 200, answer.text
    return [item["name"] for item in answer.json()["items"]]


async def test_agents_are_found_by_words_skill_tag_and_mode(desk: Reception) -> None:
    assert await names(desk, "q=quote") == ["sales", "travel"]
    assert await names(desk, "skill=refund") == ["sales"]
    assert await names(desk, "tag=travel") == ["travel"]
    assert await names(desk, "mode=application/json&q=orders") == ["sales"]
    assert await names(desk, "q=quote&tag=hidden") == []


async def test_nobody_finds_what_they_may_not_see(desk: Reception) -> None:
    assert await names(desk, "q=quote", "admin") == ["sales", "secret", "travel"]
    assert await names(desk, "q=quote", "nora") == []
    assert await names(desk, "q=quote", "admin", tenant="acme") == ["acmes"]
    for scope, seen in SCOPES.items():
        assert await names(desk, "q=quote", scope=scope) == seen


async def test_findings_come_in_pages(desk: Reception) -> None:
    seen, path = [], "/api/agents?q=quote&limit=1"
    while path:
        page = (await desk.ask("GET", path)).json()
        seen += [item["name"] for item in page["items"]]
        path = f"/api/agents?q=quote&limit=1&cursor={page['next']}" if page["next"] else ""
    assert seen == ["sales", "secret", "travel"]
    assert (await desk.ask("GET", "/api/agents?q=quote&cursor=x'y")).status_code == 400


@pytest.mark.parametrize("text", ["' OR 1=1 --", '" OR 1', "%25", "_", "*", "quote%00", "a" * 999, "((((x%2B)%2B)%2B)%2B)%24"])
async def test_a_question_is_no_statement(desk: Reception, text: str) -> None:  # attack TEN-08
    with cpu_seconds(10):
        for path in (f"/api/agents?q={text}", f"/api/agents?skill={text}", f"/api/agents?tag={text}", f"/api/agents?mode={text}"):
            answer = await desk.ask("GET", path, "alice")
            assert answer.status_code in (200, 400, 422)
            assert answer.json().get("items", []) == []
    assert (await desk.ask("GET", f"/api/agents?q={'a' * 1001}", "alice")).status_code == 422


async def test_the_public_catalog_names_active_agents_of_the_default_tenant(desk: Reception) -> None:
    answer = await desk.home.http.get("/.well-known/ai-catalog.json")
    assert (answer.status_code, "max-age" in answer.headers["cache-control"]) == (200, True)
    found = [entry["identifier"] for entry in answer.json()["entries"]]
    assert found == [
        "urn:air:interlock.test:default:interlock",
        "urn:air:interlock.test:registry:interlock",
        "urn:air:interlock.test:default:sales",
        "urn:air:interlock.test:default:travel",
    ]


async def test_ard_search_ranks_what_the_caller_may_see(desk: Reception) -> None:
    body = {"query": {"text": "make quote"}, "federation": "none", "pageSize": 1}
    answer = (await desk.ask("POST", "/ard/search", "alice", body)).json()
    assert [entry["metadata"]["name"] for entry in answer["results"]] == ["sales"]
    first = answer["results"][0]
    assert (0 < first["score"] <= 100, first["source"], "pageToken" in answer) == (True, f"{URL}/ard", False)
    everyone = {"query": {"text": "quote"}, "pageSize": 1, "federation": "referrals"}
    page = (await desk.ask("POST", "/ard/search", "admin", everyone)).json()
    assert page["referrals"] == []
    after = (await desk.ask("POST", "/ard/search", "admin", {**everyone, "pageToken": page["pageToken"]})).json()
    assert [entry["displayName"] for entry in (*page["results"], *after["results"])] == [
        "Sales",
        "Travel",
    ]  # quarantined ones are not offered
    assert (await desk.ask("POST", "/ard/search", "nora", body)).json() == {"results": []}
    narrowed = {"query": {"text": "quote", "filter": {"tags": ["travel"], "type": "application/a2a-agent-card+json"}}}
    assert [one["displayName"] for one in (await desk.ask("POST", "/ard/search", "alice", narrowed)).json()["results"]] == ["Travel"]


async def test_a_hidden_agent_is_no_place_in_a_list_of_ard(desk: Reception) -> None:
    for token, found in (("sales", 200), ("travel", 400), ("secret", 400)):
        body = {"query": {"text": "quote"}, "pageToken": token}
        assert (await desk.ask("POST", "/ard/search", "alice", body, scope="agent:sales")).status_code == found
        assert (await desk.ask("GET", f"/ard/agents?pageToken={token}", "alice", scope="agent:sales")).status_code == found


async def test_ard_lists_and_explores(desk: Reception) -> None:
    listed = (await desk.ask("GET", "/ard/agents?orderBy=displayName%20DESC&pageSize=1", "alice")).json()
    assert ([one["displayName"] for one in listed["items"]], listed["total"]) == (["Travel"], 2)
    following = (await desk.ask("GET", f"/ard/agents?orderBy=displayName%20DESC&pageToken={listed['pageToken']}", "alice")).json()
    assert [one["displayName"] for one in following["items"]] == ["Sales"]
    filtered = (await desk.ask("GET", "/ard/agents?filter=tags%20%3D%20'sales'", "alice")).json()
    assert [one["displayName"] for one in filtered["items"]] == ["Sales"]
    body = {"resultType": {"facets": [{"field": "tags"}, {"field": "capabilities", "limit": 1}]}}
    explored = (await desk.ask("POST", "/ard/explore", "alice", body)).json()
    assert explored["resultType"] == "facets"
    assert explored["facets"]["tags"] == {"buckets": [{"value": "sales", "count": 1}, {"value": "travel", "count": 1}], "otherCount": 0}
    assert explored["facets"]["capabilities"]["otherCount"] == 2


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/ard/search", {"query": {"text": "x", "filter": {"owner": ["a"]}}}),
        ("POST", "/ard/search", {"query": {"text": " "}}),
        ("POST", "/ard/search", {"query": {}}),
        ("POST", "/ard/search", {}),
        ("POST", "/ard/search", {"query": {"text": "x"}, "pageToken": "nobody"}),
        ("POST", "/ard/search", {"query": {"text": "x"}, "federation": "all"}),
        ("POST", "/ard/explore", {"resultType": {"facets": [{"field": "owner"}]}}),
        ("GET", "/ard/agents?filter=owner%20%3D%20'x'", None),
    ],
)
async def test_ard_tells_what_is_wrong_in_its_own_shape(desk: Reception, method: str, path: str, body: Any) -> None:
    answer = await desk.ask(method, path, "alice", body)
    assert (answer.status_code, answer.json()["errorCode"]) == (400, "INVALID_ARGUMENT")
    assert answer.json()["message"]


async def test_ard_is_for_whoever_has_a_token(desk: Reception) -> None:
    for method, path in (("GET", "/ard/agents"), ("POST", "/ard/search"), ("POST", "/ard/explore")):
        assert (await desk.ask(method, path, "")).status_code == 401
