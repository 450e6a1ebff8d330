"""Operators see and trace everybody's tasks of their tenant, and each look stands in the audit."""

from typing import Any

import httpx
import pytest

from tests.fakes.house import CallbackAgent, House

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
AUDITOR = "audit:read"


@pytest.fixture
async def echo(home: House) -> House:
    await home.agent(CallbackAgent("echo"))
    return home


async def asked(home: House, user: str) -> str:
    return str((await home.send(home.token(user), "echo", "hello"))["result"]["task"]["id"])


async def get(home: House, path: str, token: str) -> httpx.Response:
    return await home.http.get(path, headers={"authorization": f"Bearer {token}", "accept": "application/json"})


async def looks(home: House) -> list[dict[str, Any]]:
    """Decisions of the audit that are about looking at tasks."""
    records = (await get(home, "/api/audit?kind=decision&limit=200", home.token("admin"))).json()["items"]
    return [record for record in records if record.get("verb") in ("see-task", "list-tasks")]


@pytest.mark.parametrize("what", ["", "/trace", "/events"])
async def test_a_look_at_the_task_of_another_is_kept_with_the_task(echo: House, what: str) -> None:
    task_id = await asked(echo, "alice")
    seen = await get(echo, f"/api/tasks/{task_id}{what}", echo.token("admin"))
    assert seen.status_code == 200
    assert seen.json() == (await get(echo, f"/api/tasks/{task_id}{what}", echo.token("alice"))).json()
    (look,) = await looks(echo)
    assert (look["principal"]["subject"], look["task_id"], look["allowed"]) == ("admin", task_id, True)
    assert (look["verb"], look["permission"]) == ("see-task", AUDITOR)


async def test_everybodys_tasks_are_listed_for_those_who_may_read_the_audit(echo: House) -> None:
    ids = [await asked(echo, user) for user in ("alice", "bob", "admin")]
    page = (await get(echo, "/api/tasks?everybody=true&limit=2", echo.token("admin"))).json()
    rest = (await get(echo, f"/api/tasks?everybody=true&cursor={page['next']}", echo.token("admin"))).json()
    assert [item["id"] for item in page["items"] + rest["items"]] == ids[::-1]
    assert {item["owner"].split("|")[2] for item in page["items"] + rest["items"]} == {"alice", "bob", "admin"}
    assert [item["id"] for item in (await get(echo, "/api/tasks", echo.token("admin"))).json()["items"]] == ids[2:]
    assert [look["verb"] for look in await looks(echo)] == ["list-tasks", "list-tasks"]
    found = (await get(echo, "/api/tasks?everybody=true&agent=none", echo.token("admin"))).json()
    assert found["items"] == []


# attack TEN-01
async def test_nobody_else_sees_or_lists_the_tasks_of_others(echo: House) -> None:
    task_id = await asked(echo, "alice")
    narrowed = echo.token("admin", scope="agent:* tool:*")
    for token in (echo.token("bob"), narrowed, echo.token("admin", tenant="evil")):
        foreign, unknown = [await get(echo, f"/api/tasks/{one}", token) for one in (task_id, "t_none")]
        assert (foreign.status_code, foreign.content) == (404, unknown.content)
    for token in (echo.token("bob"), narrowed):
        refused = await get(echo, "/api/tasks?everybody=true", token)
        assert refused.status_code == 403 and refused.json()["decision"]["missing"]
    assert (await get(echo, "/api/tasks?everybody=true", echo.token("admin", tenant="evil"))).json()["items"] == []
    assert not [look for look in await looks(echo) if look["allowed"]]


async def test_an_agent_on_an_operators_errand_oversees_nobody(echo: House) -> None:
    seen: list[httpx.Response] = []
    task_id = await asked(echo, "alice")

    async def spy(token: str, text: str) -> str:
        exchanged = await echo.exchanged("spy", token, "/mcp", "agent:* audit:read")
        seen.extend([await get(echo, path, exchanged) for path in (f"/api/tasks/{task_id}", "/api/tasks?everybody=true")])
        return "done"

    await echo.agent(CallbackAgent("spy", spy))
    await echo.send(echo.token("admin"), "spy", "look around")
    assert [answer.status_code in (401, 403, 404) for answer in seen] == [True, True]
    assert not await looks(echo)


async def waiting_task(home: House) -> str:
    """A task of alice whose agent asks her something."""
    agent = CallbackAgent("asking")
    agent.state, agent.message = "TASK_STATE_INPUT_REQUIRED", {"messageId": "q", "role": "ROLE_AGENT", "parts": [{"text": "which?"}]}
    await home.agent(agent)
    return str((await home.send(home.token("alice"), "asking", "hello"))["result"]["task"]["id"])


async def cancel(home: House, task_id: str, token: str) -> httpx.Response:
    return await home.http.post(f"/api/tasks/{task_id}/cancel", headers={"authorization": f"Bearer {token}"})


async def test_an_operator_cancels_the_task_of_another_and_the_audit_has_it(home: House) -> None:
    task_id = await waiting_task(home)
    stopped = await cancel(home, task_id, home.token("admin", scope="policy:write"))
    assert (stopped.status_code, stopped.json()["state"]) == (200, "TASK_STATE_CANCELED")
    records = (await get(home, "/api/audit?kind=decision&limit=200", home.token("admin"))).json()["items"]
    (ruled,) = (record for record in records if record.get("verb") == "cancel-task")
    assert (ruled["principal"]["subject"], ruled["task_id"], ruled["permission"]) == ("admin", task_id, "policy:write")
    assert ruled["allowed"]
    assert "own-task" not in {record["reason_id"] for record in records}
    again = await cancel(home, task_id, home.token("admin"))
    assert (again.status_code, again.json()["reason_id"]) == (400, "not-cancelable")


async def test_the_owner_cancels_without_a_decision_about_others(home: House) -> None:
    task_id = await waiting_task(home)
    assert (await cancel(home, task_id, home.token("alice"))).json()["state"] == "TASK_STATE_CANCELED"
    assert "cancel-task" not in (await get(home, "/api/audit?kind=decision&limit=200", home.token("admin"))).text


# attack TEN-01, ADM-01
async def test_nobody_else_cancels_the_task_of_another(home: House) -> None:
    task_id = await waiting_task(home)
    for token in (home.token("bob"), home.token("admin", scope="agent:* audit:read"), home.token("admin", tenant="evil")):
        foreign, unknown = [await cancel(home, one, token) for one in (task_id, "t_none")]
        assert (foreign.status_code, foreign.content) == (404, unknown.content)
    found = (await get(home, f"/api/tasks/{task_id}", home.token("alice"))).json()
    assert found["state"] == "TASK_STATE_INPUT_REQUIRED"


async def test_ones_own_tasks_are_no_matter_for_the_audit(echo: House) -> None:
    task_id = await asked(echo, "admin")
    assert (await get(echo, f"/api/tasks/{task_id}", echo.token("admin"))).status_code == 200
    assert await looks(echo) == []
