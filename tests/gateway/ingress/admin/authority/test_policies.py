"""/api/policies/what-if through the front door."""

from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import House
from tests.gateway.cli.local.test_policy import LIMIT
from tests.gateway.ingress.admin.authority.test_authzen import ask

WHAT_IF = "/api/policies/what-if"
PERMIT = '@id("bob-too") permit(principal, action == Action::"inventory.reserve", resource) when { principal.subject == "bob" };'


@pytest.fixture
async def denied(home: House) -> str:
    """bob was refused a reservation, and alice was not."""
    await home.server("inventory", "check", "reserve")
    await home.call(home.token("alice"), "/mcp/inventory", "reserve", {"quantity": 2})
    refused = (await home.call(home.token("bob"), "/mcp/inventory", "reserve", {"quantity": 2})).json()
    return str(refused["error"]["data"]["decision_id"])


async def what_if(home: House, **body: Any) -> Any:
    answer = await ask(home, "admin", body, WHAT_IF)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_past_denials_are_ruled_on_again_by_what_is_sent(home: House, denied: str) -> None:
    found = await what_if(home, policies={"ours.cedar": PERMIT})
    (item,) = found["items"]
    assert (item["id"], item["principal"], item["permission"]) == (denied, "default|interlock-development|bob", "tool:inventory.reserve")
    assert item["then"] == {"ruling": "deny", "reason_id": "user-lacks-permission", "policies": []}
    assert (item["now"], item["changed"]) == ({"ruling": "allow", "policies": ["bob-too"], "note": ""}, True)
    assert found["summary"] == {"replayed": 1, "changed": 1, "unknown": 0}
    assert (await what_if(home))["items"][0]["changed"] is False  # as things are
    assert home.gateway.rulings.engine.rules.warnings == () and (await what_if(home, policies={}))["summary"]["changed"] == 0


async def test_what_is_allowed_is_ruled_on_again_where_it_is_asked_for(home: House, denied: str) -> None:
    text = '@id("none") forbid(principal, action == Action::"callTool", resource);'
    items = (await what_if(home, policies={"ours.cedar": text}, only="allowed"))["items"]
    assert [one["now"]["ruling"] for one in items if one["permission"].startswith("tool:")] == ["deny"]
    both = (await what_if(home, policies={"ours.cedar": text}, only="all"))["items"]
    assert len(both) > len(items)
    assert [one["id"] for one in (await what_if(home, decisions=[denied, "d_unknown"]))["items"]] == [denied]
    assert len((await what_if(home, only="all", limit=1))["items"]) == 1


async def test_arguments_are_asked_for_where_a_policy_reads_them(home: House, denied: str) -> None:
    text = PERMIT + LIMIT.replace("shop.buy", "inventory.reserve") % "quantity"
    (item,) = (await what_if(home, policies={"ours.cedar": text}))["items"]
    assert (item["now"]["ruling"], item["changed"]) == ("unknown", None) and "arguments" in item["now"]["note"]
    (item,) = (await what_if(home, policies={"ours.cedar": text}, arguments={denied: {"quantity": 2}}))["items"]
    assert item["now"]["ruling"] == "allow"


async def test_only_those_who_may_change_policies_ask(home: House, denied: str) -> None:  # attack TEN-01
    refused = await ask(home, "alice", {}, WHAT_IF)
    assert (refused.status_code, refused.json()["reason_id"]) == (403, "user-lacks-permission")
    stranger = await ask(home, "", {"decisions": [denied]}, WHAT_IF, token=home.token("admin", tenant="other"))
    assert stranger.json()["items"] == []


async def test_policies_that_can_not_be_used_are_named(home: House, tmp_path: Path) -> None:
    odd = [({"ours.cedar": "permit("}, "ours.cedar:1"), ({"../x": ""}, "files *.cedar"), ({"links.yaml": "- a"}, "links.yaml")]
    for policies, problem in odd:
        answer = await ask(home, "admin", {"policies": policies}, WHAT_IF)
        assert answer.status_code == 422 and problem in answer.json()["detail"]
