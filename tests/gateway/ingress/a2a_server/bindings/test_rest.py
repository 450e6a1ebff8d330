"""What only HTTP+JSON has: paths, verbs, queries and media types."""

from typing import Any

import httpx
import pytest

from tests.fakes.a2a_doors import ask, message_of, result
from tests.fakes.house import CallbackAgent, House

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
DOOR = "rest-1.0"
GET = "GET, HEAD"  # HEAD is served wherever GET is
MESSAGE = {"message": message_of(DOOR, "hello")}


async def asked(home: House, verb: str, path: str, **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {home.token('alice')}", **more.pop("headers", {})}
    return await home.http.request(verb, f"/agents/sales{path}", headers=headers, **more)


@pytest.mark.parametrize(
    ("sent", "accepted", "answered"),
    [
        ("application/json", None, "application/json"),
        ("application/a2a+json", None, "application/a2a+json"),
        ("application/json; charset=utf-8", "application/a2a+json", "application/json"),
        (None, "application/json", "application/json"),
        (None, "application/a2a+json", "application/a2a+json"),
        (None, "application/json, application/a2a+json", "application/a2a+json"),
        (None, "*/*", "application/a2a+json"),
    ],
)
async def test_an_answer_has_the_media_type_of_the_request(home: House, sent: str | None, accepted: str | None, answered: str) -> None:
    await home.agent(CallbackAgent("sales"))
    given = {"content-type": sent} if sent else {}
    task = result(DOOR, await ask(home, DOOR, "send", MESSAGE))["id"]
    headers = {**given, **({"accept": accepted} if accepted else {})}
    answer = await asked(home, "POST" if sent else "GET", "/message:send" if sent else f"/tasks/{task}", headers=headers, json=MESSAGE)
    if not sent:
        answer = await home.http.get(f"/agents/sales/tasks/{task}", headers={"authorization": f"Bearer {home.token('alice')}", **headers})
    assert (answer.status_code, answer.headers["content-type"]) == (200, answered)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/vnd.api+json", "multipart/form-data"])
async def test_another_media_type_is_refused(home: House, kind: str) -> None:
    agent = await home.agent(CallbackAgent("sales"))
    answer = await asked(home, "POST", "/message:send", headers={"content-type": kind}, content=b"{}")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["status"]) == (415, 415, "INVALID_ARGUMENT")
    assert answer.headers["content-type"] == "application/json" and agent.requests == []


async def test_a_path_that_is_none_and_a_verb_that_it_does_not_take(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    for path in ("/nothing", "/v1", "/v1/", "/v1/nothing", "/message:nothing", "/tasks/", "/tasks/t/more", "/sales", "/a/b/tasks"):
        error = (await asked(home, "GET", path)).json()["error"]
        assert (error["code"], error["status"], error["details"][0]["reason"]) == (404, "NOT_FOUND", "UNKNOWN_PATH"), path
    verbs = {("GET", "/message:send"): "POST", ("PUT", "/tasks/t"): GET, ("POST", "/tasks"): GET, ("PATCH", "/v1/card"): GET}
    verbs |= {("PUT", "/tasks/t:subscribe"): "GET, HEAD, POST", ("PUT", "/tasks/t/pushNotificationConfigs/c"): "DELETE, GET, HEAD"}
    for (verb, path), allowed in verbs.items():
        answer = await asked(home, verb, path)
        assert (answer.status_code, answer.headers["allow"], answer.json()["error"]["code"]) == (405, allowed, 405), path


async def test_a_tenant_in_the_path_is_the_agent_or_nobody(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    task = (await asked(home, "POST", "/sales/message:send", json={**MESSAGE, "tenant": "sales"})).json()["task"]
    assert (await asked(home, "GET", f"/sales/tasks/{task['id']}")).json() == task
    for verb, path, body in (
        ("GET", f"/support/tasks/{task['id']}", None),
        ("POST", "/support/message:send", MESSAGE),
        ("POST", "/sales/message:send", {**MESSAGE, "tenant": "support"}),
        ("GET", f"/tasks/{task['id']}?tenant=support", None),
    ):
        answer = await asked(home, verb, path, **({"json": body} if body else {}))
        assert (answer.status_code, answer.json()["error"]["details"][0]["reason"]) == (404, "UNKNOWN"), path


async def test_a_body_may_be_left_out_and_may_not_speak_of_another_task(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    json = {"content-type": "application/json"}
    empty = await asked(home, "POST", "/tasks/t_1:cancel", headers=json)
    assert (empty.status_code, empty.json()["error"]["status"]) == (404, "NOT_FOUND")
    other = await asked(home, "POST", "/tasks/t_1:cancel", json={"id": "t_2"})
    assert other.json()["error"]["details"][0]["fieldViolations"] == [{"field": "id", "description": "differs from the one in the path"}]
    array = await asked(home, "POST", "/message:send", headers=json, content=b"[]")
    assert (array.status_code, array.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    "query",
    [
        "pageSize=0",
        "pageSize=101",
        "pageSize=ten",
        "pageSize=1&pageSize=2",
        "pageToken=nonsense",
        "pageToken=1.%00",
        "contextId=%00",
        "status=DONE",
        "includeArtifacts=maybe",
        "historyLength=-1",
        "statusTimestampAfter=yesterday",
        "statusTimestampAfter=2026-01-01T00:00:00",
        "a=%ff",
        "&".join(f"f{number}=1" for number in range(60)),
    ],
)
async def test_a_query_that_makes_no_sense_is_refused(home: House, query: str) -> None:
    await home.agent(CallbackAgent("sales"))
    answer = await asked(home, "GET", f"/tasks?{query}")
    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT"), answer.text


async def test_tasks_are_listed_as_the_query_asks(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    made = [
        result(DOOR, await ask(home, DOOR, "send", {"message": message_of(DOOR, "hi", contextId=context)})) for context in ("a", "a", "b")
    ]

    async def found(query: str) -> Any:
        return (await asked(home, "GET", f"/tasks?{query}")).json()

    everything = await found("")
    assert [task["id"] for task in everything["tasks"]] == [task["id"] for task in reversed(made)]
    assert (everything["totalSize"], everything["nextPageToken"], everything["pageSize"]) == (3, "", 50)
    assert not any("artifacts" in task or "history" in task for task in everything["tasks"])
    whole = await found("includeArtifacts=true&historyLength=1&context_id=b")
    assert whole["tasks"] == [made[2]]
    first = await found("pageSize=2")
    rest = await found(f"pageSize=2&pageToken={first['nextPageToken']}")
    assert [*first["tasks"], *rest["tasks"]] == everything["tasks"] and rest["nextPageToken"] == ""
    assert (await found("status=TASK_STATE_WORKING"))["tasks"] == []
    assert len((await found(f"statusTimestampAfter={made[1]['status']['timestamp']}"))["tasks"]) == 2
    assert (await found("statusTimestampAfter=2999-01-01T00:00:00%2B02:00"))["tasks"] == []


async def test_each_version_has_its_own_paths(home: House) -> None:
    await home.agent(CallbackAgent("sales"))
    for path, version in (("/tasks/t_1", "0.3"), ("/v1/tasks/t_1", "1.0")):
        answer = await asked(home, "GET", path, headers={"A2A-Version": version})
        assert (answer.status_code, answer.json()["error"]["details"][0]["reason"]) == (400, "VERSION_NOT_SUPPORTED")
        assert (await asked(home, "GET", path)).status_code == 404
    old = (await asked(home, "GET", "/v1/tasks/t_1")).json()
    assert (old["type"], old["message"]) == ("TaskNotFoundError", "There is no such task.")
    await ask(home, "rest-0.3", "send", {"message": message_of("rest-0.3", "hello")})
    listed = (await asked(home, "GET", "/v1/tasks")).json()
    assert [task["history"][0]["content"] for task in listed] == [[{"text": "hello"}]]
