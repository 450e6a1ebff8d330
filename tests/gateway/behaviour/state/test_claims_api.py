"""Claims over /api: who may take one, what others learn, and what stale tokens get."""

from typing import Any

import httpx
import pytest

from tests.fakes.house import House, house

ROLES = {"operator": ["*"], "desk": ["state:write:customer/*", "agent:*"], "reader": ["state:*"], "nobody": []}
USERS = {"ann": {"roles": ["desk"]}, "bob": {"roles": ["desk"]}, "rita": {"roles": ["reader"]}, "nora": {"roles": ["nobody"]}}


@pytest.fixture
async def home(tmp_path: Any, database_url: str) -> Any:
    async with house(tmp_path / "home", database_url, roles=ROLES, users=USERS) as built:
        yield built


async def ask(home: House, user: str, method: str, path: str, **body: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {home.token(user)}"}
    return await home.http.request(method, f"/api/claims{path}", headers=headers, json=body or None)


async def test_a_claim_is_taken_renewed_and_released(home: House) -> None:
    taken = (await ask(home, "ann", "POST", "", subject="customer:42", effect="outbound-email", cool_down_seconds=60)).json()
    path = f"/{taken['id']}"
    renewed = await ask(home, "ann", "PUT", path, token=taken["token"], seconds=1200)
    released = await ask(home, "ann", "DELETE", f"{path}?token={taken['token']}")
    assert (taken["state"], renewed.json()["state"], released.json()["state"]) == ("held", "held", "cooling")
    assert taken["until"] < renewed.json()["until"] and renewed.json()["token"] == taken["token"]
    again = await ask(home, "bob", "POST", "", subject="customer:42", effect="outbound-email")
    assert (again.status_code, again.json()["reason_id"]) == (409, "cool-down")


async def test_a_refusal_names_the_holder_only_to_those_who_may_read_claims(home: House) -> None:
    await ask(home, "ann", "POST", "", subject="customer:42", purpose="ticket 7")
    to_bob = await ask(home, "bob", "POST", "", subject="customer:42")
    to_rita = await ask(home, "rita", "POST", "", subject="customer:42")
    assert (to_bob.status_code, to_bob.json()["reason_id"]) == (409, "claim-denied")
    assert to_bob.json()["detail"].startswith("Another person has claimed customer:42, for: ticket 7, until ")
    assert to_rita.json()["detail"].startswith("ann has claimed customer:42")
    assert 590 < int(to_bob.headers["retry-after"]) <= 600


async def test_taking_a_claim_needs_the_permission_and_a_high_priority_its_own(home: House) -> None:
    refused = await ask(home, "nora", "POST", "", subject="customer:42")
    assert refused.status_code == 403 and refused.json()["decision"]["missing"] == ["state:write:customer/42/claims (user)"]
    urgent = await ask(home, "ann", "POST", "", subject="order:7", priority=501)
    assert urgent.json()["decision"]["missing"] == ["state:write:order/7/claims/urgent (user)"]


async def test_a_pre_empted_holder_is_told_and_its_token_is_refused(home: House) -> None:
    old = (await ask(home, "ann", "POST", "", subject="customer:42")).json()
    await ask(home, "bob", "POST", "", subject="customer:42", priority=200)
    late = await ask(home, "ann", "PUT", f"/{old['id']}", token=old["token"])
    assert (late.status_code, late.json()["reason_id"]) == (409, "claim-lost")
    assert "pre-empted" in late.json()["detail"]


async def test_lists_show_own_claims_and_those_on_a_subject_to_readers(home: House) -> None:
    taken = (await ask(home, "ann", "POST", "", subject="customer:42")).json()

    async def ids(user: str, query: str) -> list[str]:
        return [each["id"] for each in (await ask(home, user, "GET", query)).json()["items"]]

    assert await ids("ann", "") == await ids("ann", "?subject=customer:42") == [taken["id"]]
    assert await ids("bob", "") == await ids("bob", "?subject=customer:42") == []
    assert await ids("rita", "?subject=customer:42") == await ids("admin", "?everybody=true") == [taken["id"]]
    assert (await ask(home, "bob", "GET", "?everybody=true")).status_code == 403


async def test_claims_of_another_tenant_are_unknown(home: House) -> None:
    taken = (await ask(home, "ann", "POST", "", subject="customer:42")).json()
    stranger = {"authorization": f"Bearer {home.token('ann', tenant='other')}"}
    answer = await home.http.delete(f"/api/claims/{taken['id']}?token={taken['token']}", headers=stranger)
    other = await home.http.post("/api/claims", headers=stranger, json={"subject": "customer:42"})
    assert (answer.status_code, answer.json()["reason_id"], other.status_code) == (404, "unknown", 201)


@pytest.mark.parametrize(
    ("body", "member"),
    [
        ({"subject": "customer/42"}, "subject"),
        ({"subject": "customer:../7"}, "subject"),
        ({"subject": "customer:4\u0662"}, "subject"),
        ({"subject": "customer:42", "effect": "A b"}, "effect"),
        ({"subject": "customer:42", "priority": 1001}, "priority"),
        ({"subject": "customer:42", "seconds": 0}, "seconds"),
        ({"subject": "customer:42", "purpose": "a\nb"}, "purpose"),
    ],
)
async def test_a_claim_that_says_something_else_is_refused(home: House, body: dict[str, Any], member: str) -> None:
    answer = await ask(home, "ann", "POST", "", **body)
    assert answer.status_code == 422 and answer.json()["detail"].startswith(member)
