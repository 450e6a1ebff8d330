"""What belongs to somebody else reads exactly like what does not exist, at the A2A door and on /api."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.a2a_agents import a2a_agent
from tests.fakes.a2a_agents import serving as serving_agent
from tests.fakes.house import CallbackAgent, House, house
from tests.fakes.issuer import FakeIssuer
from tests.fakes.issuer import serving as serving_issuer

VERSION = {"A2A-Version": "1.0"}
UNKNOWN = "t_00000000000000000000000000000"


def told(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    return answer.status_code, sorted(answer.headers.items()), answer.content


def message(**more: Any) -> dict[str, Any]:
    return {"message": {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hello"}], **more}}


async def asked_by_alice(home: House) -> dict[str, Any]:
    """A task of alice's that waits for her answer."""
    url = await home.stack.enter_async_context(serving_agent(a2a_agent()))
    await home.registered("sales", url)
    task: dict[str, Any] = (await home.send(home.token("alice"), "sales", "ask"))["result"]["task"]
    config = {"taskId": task["id"], "id": "c1", "url": "http://127.0.0.1:9001/"}
    made = await home.rpc("/agents/sales", home.token("alice"), "CreateTaskPushNotificationConfig", config, **VERSION)
    assert made.json()["result"]["id"] == "c1"
    return task


# attack TEN-01
@pytest.mark.parametrize("user", ["bob", "mallory", "admin", "nora"])
async def test_a_foreign_task_reads_exactly_like_an_unknown_one(home: House, user: str) -> None:
    task = await asked_by_alice(home)
    token = home.token(user)
    for method, params in {
        "GetTask": lambda task_id: {"id": task_id},
        "CancelTask": lambda task_id: {"id": task_id},
        "SendMessage": lambda task_id: message(taskId=task_id),
        "SendStreamingMessage": lambda task_id: message(taskId=task_id),
        "SendMessage ": lambda task_id: message(taskId=task_id, contextId=task["contextId"]),
        "SubscribeToTask": lambda task_id: {"id": task_id},
        "CreateTaskPushNotificationConfig": lambda task_id: {"taskId": task_id, "url": "http://127.0.0.1:9001/"},
        "GetTaskPushNotificationConfig": lambda task_id: {"taskId": task_id, "id": "c1"},
        "ListTaskPushNotificationConfigs": lambda task_id: {"taskId": task_id},
        "DeleteTaskPushNotificationConfig": lambda task_id: {"taskId": task_id, "id": "c1"},
    }.items():
        foreign, unknown = [await home.rpc("/agents/sales", token, method.strip(), params(one), **VERSION) for one in (task["id"], UNKNOWN)]
        assert told(foreign) == told(unknown), method
        assert foreign.json()["error"]["code"] in (-32001, -32011)
    for narrowing in ({}, {"contextId": task["contextId"]}):
        listed = (await home.rpc("/agents/sales", token, "ListTasks", narrowing, **VERSION)).json()
        assert listed.get("result", {}).get("tasks", []) == []
        assert listed.get("result", {}).get("totalSize", 0) == 0
    for path in ("", "/events", "/trace") if user != "admin" else ():  # who reads the audit sees tasks, which is in the audit too
        headers = {"authorization": f"Bearer {token}"}
        foreign, unknown = [await home.http.get(f"/api/tasks/{one}{path}", headers=headers) for one in (task["id"], UNKNOWN)]
        assert told(foreign) == told(unknown) and foreign.status_code == 404
    mine = await home.rpc("/agents/sales", home.token("alice"), "GetTask", {"id": task["id"]}, **VERSION)
    assert mine.json()["result"] == task  # nothing was changed, and it can still be answered
    assert (await home.send(home.token("alice"), "sales", "XL", taskId=task["id"]))["result"]["task"]["status"][
        "state"
    ] == "TASK_STATE_COMPLETED"


# attack TEN-01: a context is a conversation of one person with one agent
async def test_a_foreign_context_is_a_fresh_one(home: House) -> None:
    agent = await home.agent(CallbackAgent("sales"))
    task = (await home.send(home.token("alice"), "sales", "secret"))["result"]["task"]
    theirs = (await home.send(home.token("bob"), "sales", "hello", contextId=task["contextId"]))["result"]["task"]
    assert [part["text"] for m in theirs["history"] for part in m["parts"]] == ["hello"]
    assert "contextId" not in agent.requests[1]["params"]["message"]
    mine = (await home.send(home.token("alice"), "sales", "more", contextId=task["contextId"]))["result"]["task"]
    assert agent.requests[2]["params"]["message"]["contextId"] == "sales-context" and mine["contextId"] == task["contextId"]


# attack TEN-01: of another agent of one's own
async def test_a_task_is_known_to_its_own_agent_alone(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    await home.agent(CallbackAgent("support"))
    task = (await home.send(home.token("alice"), "sales", "secret"))["result"]["task"]
    foreign, unknown = [
        await home.rpc("/agents/support", home.token("alice"), "GetTask", {"id": one}, **VERSION) for one in (task["id"], UNKNOWN)
    ]
    assert told(foreign) == told(unknown)


async def test_an_agent_that_may_not_be_known_reads_like_none_at_every_operation(home: House) -> None:
    task = await asked_by_alice(home)
    nora = home.token("nora")
    for method, params in {
        "SendMessage": message(),
        "SendStreamingMessage": message(),
        "SendMessage ": message(taskId=task["id"]),
        "GetTask": {"id": task["id"]},
        "CancelTask": {"id": task["id"]},
        "Nonsense": {},
    }.items():
        hidden, none = [await home.rpc(f"/agents/{agent}", nora, method.strip(), params, **VERSION) for agent in ("sales", "nobody")]
        assert told(hidden) == told(none), method


# attack TEN-04
async def test_a_tenant_in_the_request_is_no_key(home: House) -> None:
    task = await asked_by_alice(home)
    for tenant in ("acme", "default", "sales/../support", "*", "\u0000"):
        for method, params in (("SendMessage", message()), ("GetTask", {"id": task["id"]}), ("CancelTask", {"id": task["id"]})):
            answer = await home.rpc("/agents/sales", home.token("alice"), method, {**params, "tenant": tenant}, **VERSION)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32011), (tenant, method)
    for tenant in ("", "sales", None):
        answer = await home.rpc("/agents/sales", home.token("alice"), "GetTask", {"id": task["id"], "tenant": tenant}, **VERSION)
        assert answer.json()["result"]["id"] == task["id"]
    forged = {"X-Tenant": "acme", "A2A-Tenant": "acme", "X-Forwarded-Host": "acme.test"}
    answer = await home.rpc("/agents/sales", home.token("alice", tenant="acme"), "GetTask", {"id": task["id"]}, **VERSION, **forged)
    assert answer.json()["error"]["code"] == -32001


@pytest.fixture
def issuers() -> Iterator[tuple[FakeIssuer, FakeIssuer]]:
    with ExitStack() as stack:
        first, second = [stack.enter_context(serving_issuer(FakeIssuer(audience="http://interlock.test"))) for _ in range(2)]
        yield first, second


# attack TEN-03
async def test_one_name_in_two_tenants_and_of_two_issuers_is_three_people(
    tmp_path: Path, database_url: str, issuers: tuple[FakeIssuer, FakeIssuer]
) -> None:
    trusted = [{"issuer": issuer.url, "jwks_url": issuer.jwks_url, "tenant_claim": "tid"} for issuer in issuers]
    async with house(tmp_path / "home", database_url, identity={"development": "on", "issuers": trusted}) as home:
        url = await home.stack.enter_async_context(serving_agent(CallbackAgent("sales")))
        for tenant in ("acme", "evil"):
            await home.registered("sales", url, tenant=tenant)
        people = {
            "acme": issuers[0].mint(tid="acme", roles=["member"]),
            "evil": issuers[0].mint(tid="evil", roles=["member"]),
            "other issuer": issuers[1].mint(tid="acme", roles=["member"]),
            "development": home.token("alice", tenant="acme"),
        }
        sent = await asyncio.gather(*(home.send(token, "sales", name, contextId="shared") for name, token in people.items()))
        tasks = dict(zip(people, (answer["result"]["task"]["id"] for answer in sent), strict=True))
        for name, token in people.items():
            for owner, task_id in tasks.items():
                answer = await home.rpc("/agents/sales", token, "GetTask", {"id": task_id}, **VERSION)
                if owner == name:
                    assert answer.json()["result"]["contextId"] == "shared"
                else:
                    assert told(answer) == told(await home.rpc("/agents/sales", token, "GetTask", {"id": UNKNOWN}, **VERSION))
            listed = await home.http.get("/api/tasks", headers={"authorization": f"Bearer {token}"})
            assert [item["id"] for item in listed.json()["items"]] == [tasks[name]]
