"""/api/decisions, /api/grants and /api/audit through the front door."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.fakes.house import CallbackAgent, House
from tests.gateway.ingress.admin.test_tasks import get


async def refused(home: House, user: str = "bob") -> dict[str, Any]:
    """The error of a tool call that `user` may not make."""
    await home.server("inventory", "check", "reserve")
    answer = await home.call(home.token(user), "/mcp/inventory", "reserve", {})
    return dict(answer.json()["error"])


async def delete(home: House, path: str, user: str = "", token: str = "") -> httpx.Response:
    return await home.http.delete(path, headers={"authorization": f"Bearer {token or home.token(user)}"})


async def test_a_decision_tells_what_the_refusal_told(home: House) -> None:
    error = await refused(home)
    found = (await get(home, f"/api/decisions/{error['data']['decision_id']}", "bob")).json()
    told = {name: value for name, value in error["data"].items() if name in found}
    assert {name: found[name] for name in told} == told
    assert (found["allowed"], found["reason_id"], found["missing"]) == (False, "user-lacks-permission", ["tool:inventory.reserve (user)"])
    assert (found["principal"], found["chain"], found["action"]) == ("default|interlock-development|bob", [], "callTool")
    assert (found["resource"], found["roles"], found["task_id"]) == ("inventory.reserve", ["support"], "")
    assert (found["outcome"], found["permission"]) == (None, "tool:inventory.reserve")


async def test_a_decision_tells_how_the_token_was_narrowed(home: House) -> None:
    await home.server("inventory", "check", "reserve")
    answer = await home.call(home.token("alice", scope="tool:inventory.check agent:*"), "/mcp/inventory", "reserve", {})
    found = (await get(home, f"/api/decisions/{answer.json()['error']['data']['decision_id']}", "alice")).json()
    assert (found["reason_id"], found["scope"]) == ("scope-missing", ["agent:*", "tool:inventory.check"])


async def test_a_decision_that_allowed_says_what_became_of_it(home: House) -> None:
    await home.agent(CallbackAgent("echo"))
    task = (await home.send(home.token("alice"), "echo", "Hi"))["result"]["task"]["id"]
    decision = (await get(home, f"/api/tasks/{task}")).json()["decision_id"]
    found = (await get(home, f"/api/decisions/{decision}")).json()
    assert (found["allowed"], found["outcome"], found["task_id"]) == (True, "ok", task)
    assert found["duration_us"] > 0


async def test_others_decisions_are_unknown_but_to_those_who_read_the_audit(home: House) -> None:
    path = f"/api/decisions/{(await refused(home))['data']['decision_id']}"
    foreign, unknown = await get(home, path, "alice"), await get(home, "/api/decisions/d_0", "alice")
    assert (foreign.status_code, foreign.json()) == (404, unknown.json())
    assert (await get(home, path, "admin")).json()["principal"].endswith("|bob")
    assert (await get(home, path, token=home.token("admin", scope="agent:*"))).status_code == 404
    assert (await get(home, path, token=home.token("admin", tenant="other"))).status_code == 404


async def test_people_see_their_own_refusals_and_readers_of_the_audit_all(home: House) -> None:
    wanted = (await refused(home))["data"]["decision_id"]
    assert [each["id"] for each in (await get(home, "/api/decisions", "bob")).json()["items"]] == [wanted]
    assert (await get(home, "/api/decisions", "alice")).json()["items"] == []
    assert (await get(home, "/api/decisions?everybody=true", "alice")).status_code == 403
    of_all = (await get(home, "/api/decisions?everybody=true", "admin")).json()["items"]
    assert wanted in [each["id"] for each in of_all]
    assert (await get(home, "/api/decisions?everybody=true", token=home.token("admin", tenant="other"))).json()["items"] == []


async def test_a_persons_refusals_name_nothing_that_was_answered_as_unknown(home: House) -> None:
    await home.agent(CallbackAgent("secret"))
    answers = [await home.send(home.token("nora"), name, "Hi") for name in ("secret", "no-such-agent")]
    assert len({str(each["error"]["code"]) for each in answers}) == 1, "both are answered as unknown"
    assert (await get(home, "/api/decisions", "nora")).json()["items"] == []
    of_all = (await get(home, "/api/decisions?everybody=true", "admin")).json()["items"]
    assert {each["resource"] for each in of_all} >= {"secret"}


async def test_pages_of_refusals_have_each_of_them_once(home: House) -> None:
    await home.server("inventory", "check", "reserve")
    answers = [await home.call(home.token("bob"), "/mcp/inventory", "reserve", {}) for _ in range(3)]
    ids = {each.json()["error"]["data"]["decision_id"] for each in answers}
    found, cursor = [], ""
    while cursor is not None:
        page = (await get(home, f"/api/decisions?limit=1&cursor={cursor}", "bob")).json()
        found, cursor = found + [each["id"] for each in page["items"]], page["next"]
    assert (sorted(found), len(found)) == (sorted(ids), 3)
    assert (await get(home, "/api/decisions?cursor=nonsense", "bob")).status_code == 400


async def test_the_audit_is_for_those_who_may_read_it(home: House) -> None:
    decision = (await refused(home))["data"]["decision_id"]
    denied = await get(home, "/api/audit", "bob")
    assert (denied.status_code, denied.headers["content-type"]) == (403, "application/problem+json")
    assert denied.json()["decision_id"]
    records = (await get(home, "/api/audit?kind=decision", "admin")).json()["items"]
    assert decision in {record["decision_id"] for record in records}
    assert denied.json()["decision_id"] in {record["decision_id"] for record in records}
    assert {record["tenant"] for record in records} == {"default"}
    assert (await get(home, f"/api/audit?decision_id={decision}", "admin")).json()["items"][0]["at"].endswith("Z")


async def test_the_audit_is_read_page_by_page_newest_first(home: House) -> None:
    await home.agent(CallbackAgent("echo"))
    for _ in range(3):
        await home.send(home.token("alice"), "echo", "Hi")
    whole = (await get(home, "/api/audit?kind=outcome", "admin")).json()["items"]
    seen, path = [], "/api/audit?kind=outcome&limit=1"
    for _ in range(3):
        page = (await get(home, path, "admin")).json()
        seen += page["items"]
        path = f"/api/audit?kind=outcome&limit=1&cursor={page['next']}"
    assert seen == whole
    assert [record["seq"] for record in whole] == sorted((record["seq"] for record in whole), reverse=True)
    assert page["next"] is None
    assert (await get(home, "/api/audit?cursor=nonsense", "admin")).status_code == 400


async def test_another_tenants_trail_is_not_there(home: House) -> None:
    await refused(home)
    records = (await get(home, "/api/audit", token=home.token("admin", tenant="other"))).json()["items"]
    assert {record["tenant"] for record in records} <= {"other"}


class Holding:
    """An agent that tries its token again when the test says so."""

    def __init__(self, home: House) -> None:
        self.home = home
        self.answers: list[httpx.Response] = []
        self.agent = CallbackAgent("support", self._act)
        self.user = "alice"
        self.revoked = 0  # the status of the answer
        self.done = asyncio.Event()

    async def _act(self, token: str, text: str) -> str:
        await self._try(token)
        grants = (await get(self.home, "/api/tasks", self.user)).json()["items"]
        self.revoked = (await delete(self.home, f"/api/grants/{grants[0]['grant_id']}", text)).status_code
        await self._try(token)
        self.done.set()
        return "done"

    async def _try(self, token: str) -> None:
        self.answers.append(await self.home.exchange("support", token, "/mcp/inventory", "tool:inventory.check"))


async def revoking(home: House, by: str) -> tuple[int, list[int]]:
    holding = Holding(home)
    await home.server("inventory", "check")
    await home.agent(holding.agent)
    await home.send(home.token("alice"), "support", by)
    async with asyncio.timeout(60):
        await holding.done.wait()  # the turn may be over before, since its grant is
    return holding.revoked, [answer.status_code for answer in holding.answers]


@pytest.mark.parametrize("by", ["alice", "admin"])
async def test_a_revoked_grant_is_worth_nothing_at_once(home: House, by: str) -> None:
    revoked, (before, after) = await revoking(home, by)
    assert (revoked, before) == (204, 200)
    assert after in (400, 401, 403)
    (record,) = (await get(home, "/api/audit?kind=revocation", "admin")).json()["items"]
    assert record["principal"]["subject"] == by


async def test_nobody_else_can_revoke_it(home: House) -> None:
    revoked, statuses = await revoking(home, "bob")
    assert (revoked, statuses) == (404, [200, 200])
    assert (await delete(home, "/api/grants/g_0", "alice")).json()["reason_id"] == "unknown"


async def test_revoking_twice_is_revoking_once(home: House) -> None:
    await home.agent(CallbackAgent("echo"))
    await home.send(home.token("alice"), "echo", "Hi")
    grant = (await get(home, "/api/tasks")).json()["items"][0]["grant_id"]
    for _ in range(2):
        assert (await delete(home, f"/api/grants/{grant}", "alice")).status_code == 204
    assert (await delete(home, f"/api/grants/{grant}", token=home.token("alice", tenant="other"))).status_code == 404
