"""Attacks on facts, claims and effects: rules that are evaded, subjects that are blocked for ever, and values that leak."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.house import CallbackAgent, House, house
from tests.gateway.behaviour.state.test_claim_tools import ROLES, USERS, use
from tests.gateway.behaviour.state.test_conflict_rules import MAIL, RULES, declare, mail, put

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CLAIMING = {"send": {**MAIL["send"], "claim": True, "cool_down": 3600}}
PRIVATE = '@id("private") forbid (principal, action == Action::"readState", resource in Key::"customer/42/profile");'


@pytest.fixture
async def home(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "conflicts.cedar").write_text(RULES + PRIVATE)
    async with house(tmp_path / "home", database_url, policies=str(folder), roles=ROLES, users=USERS) as built:
        await built.server("mail", "send")
        await declare(built, "mail", MAIL)
        yield built


async def test_a_hold_until_the_end_of_time_refuses_calls_and_is_shown(home: House) -> None:
    await put(home, "customer/42/holds/open-escalation", '{"until": "9999-12-31T23:59:59-12:00"}')
    assert (await mail(home))["error"]["data"]["reason_id"] == "policy-forbids"
    shown = await home.http.get("/api/subjects/customer:42", headers={"authorization": f"Bearer {home.token('admin')}"})
    assert shown.status_code == 200


async def test_a_fact_that_outlives_the_calendar_spoils_no_list(home: House) -> None:
    headers = {"authorization": f"Bearer {home.token('admin')}"}
    body = {"text": "for ever", "expires": "9999-12-31T23:59:59-12:00"}
    assert (await home.http.post("/api/memory", json=body, headers=headers)).status_code == 201
    assert (await home.http.get("/api/memory", headers=headers)).json()["items"][0]["expires"] == "9999-12-31T23:59:59.999Z"


async def test_a_cool_down_by_tool_is_bounded(home: House) -> None:
    token = home.token("admin")
    for many in (10**6 * 86_400, 10**17):
        claim = await use(home, token, "claim", subject="customer:42")
        refused = await use(home, token, "release_claim", id=claim["id"], token=claim["token"], cool_down_seconds=many)
        assert refused["error"]["reason_id"] == "bad-request"


async def test_a_claim_of_its_own_spares_a_caller_no_cool_down(home: House) -> None:
    await declare(home, "mail", CLAIMING)
    token = home.token("admin")
    claim = await use(home, token, "claim", subject="customer:42", effect="outbound-email")
    assert "result" in await mail(home)
    await use(home, token, "release_claim", id=claim["id"], token=claim["token"], cool_down_seconds=0)
    assert (await mail(home))["error"]["data"]["reason_id"] == "cool-down"


async def test_a_callee_does_not_shorten_the_cool_down_of_its_call(home: House) -> None:
    async def act(token: str, text: str) -> str:
        hop = await home.exchanged("support", token, "/mcp/subjects", "*")
        found = (await use(home, hop, "list_claims", subject="customer:42"))["items"]
        return str([await use(home, hop, "release_claim", id=each["id"], token=each["token"], cool_down_seconds=0) for each in found])

    await home.agent(CallbackAgent("support", act))
    effect = {"subject": "customer:{arguments.customer_id}", "effect": "outbound-email", "claim": True, "cool_down": 3600}
    await declare(home, "support", {"*": effect})
    token = home.token("admin")
    await home.send(token, "support", "", parts=[{"text": "write"}, {"data": {"customer_id": "42"}}])
    await home.gateway.database.write(lambda batch: None)
    assert (await mail(home))["error"]["data"]["reason_id"] == "cool-down"


async def test_an_answer_does_not_move_a_task_to_another_subject(home: House) -> None:
    agent = CallbackAgent("support")
    agent.state = "TASK_STATE_INPUT_REQUIRED"
    await home.agent(agent)
    await declare(home, "support", {"*": {"subject": "customer:{arguments.customer_id}", "effect": "outbound-email"}})
    token = home.token("admin")
    first = (await home.send(token, "support", "", parts=[{"text": "write"}, {"data": {"customer_id": "42"}}]))["result"]["task"]
    await put(home, "customer/42/holds/open-escalation", "true")
    other = [{"text": "yes"}, {"data": {"customer_id": "43"}}]
    answer = await home.send(token, "support", "", parts=other, taskId=first["id"], contextId=first["contextId"])
    assert "name customer:43, and the task is about customer:42" in answer["error"]["message"]


async def test_a_view_shows_an_agent_only_values_that_it_may_receive(home: House) -> None:
    headers = {"authorization": f"Bearer {home.token('admin')}"}
    await home.http.put("/api/state/customer/42/salary?sensitivity=3", content=b'"secret"', headers=headers)
    seen: list[Any] = []

    async def act(token: str, text: str) -> str:
        hop = await home.exchanged("public", token, "/mcp/subjects", "*")
        seen.append(await use(home, hop, "show", subject="customer:42"))
        return "ok"

    await home.agent(CallbackAgent("public", act), clearance=1)
    await home.send(home.token("admin"), "public", "go")
    assert seen and "secret" not in str(seen)


async def test_a_view_leaves_out_values_that_a_policy_forbids(home: House) -> None:
    await put(home, "customer/42/profile", '"private"')
    await put(home, "customer/42/tier", '"gold"')
    shown = await home.http.get("/api/subjects/customer:42", headers={"authorization": f"Bearer {home.token('admin')}"})
    assert shown.json()["values"] == {"tier": "gold"}
