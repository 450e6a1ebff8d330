"""/api/tasks through the front door."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from gateway.ingress.admin import tasks
from gateway.ingress.admin.tasks import _sse_lines, event_json
from gateway.tasks.log import TaskEvent
from tests.fakes.house import CallbackAgent, House


async def get(home: House, path: str, user: str = "alice", token: str = "", **headers: str) -> httpx.Response:
    sent = {"authorization": f"Bearer {token or home.token(user)}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await home.http.get(path, headers=sent)


async def asked(home: House, count: int = 1, user: str = "alice") -> list[str]:
    return [(await home.send(home.token(user), "echo", f"number {n}"))["result"]["task"]["id"] for n in range(count)]


@pytest.fixture
async def echo(home: House) -> House:
    await home.agent(CallbackAgent("echo"))
    return home


def events_of(text: str) -> list[tuple[int, str, Any]]:
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return found


async def test_a_task_is_told_with_all_that_was_said(echo: House) -> None:
    (task_id,) = await asked(echo)
    found = (await get(echo, f"/api/tasks/{task_id}")).json()
    assert (found["id"], found["agent"], found["state"], found["parent_id"]) == (task_id, "echo", "TASK_STATE_COMPLETED", "")
    assert found["owner"] == "default|interlock-development|alice"
    assert found["history"][0]["parts"] == [{"text": "number 0"}]
    assert found["artifacts"][0]["parts"] == [{"text": "echo got: number 0"}]
    assert all(found[name] for name in ("context_id", "decision_id", "grant_id"))
    assert found["created"].endswith("Z")
    assert found["updated"] >= found["created"]


async def test_the_list_is_the_callers_own_newest_first_page_by_page(echo: House) -> None:
    ids = await asked(echo, 5)
    await asked(echo, 1, "bob")
    seen: list[str] = []
    path = "/api/tasks?limit=2"
    for _ in range(3):
        page = (await get(echo, path)).json()
        seen += [item["id"] for item in page["items"]]
        path = f"/api/tasks?limit=2&cursor={page['next']}"
    assert page["next"] is None
    assert seen == ids[::-1]


async def test_the_list_narrows_by_agent_state_and_context(echo: House) -> None:
    (task_id,) = await asked(echo)
    context = (await get(echo, f"/api/tasks/{task_id}")).json()["context_id"]
    for query, count in (("agent=echo", 1), ("agent=other", 0), ("state=TASK_STATE_FAILED", 0), (f"context_id={context}", 1)):
        assert len((await get(echo, f"/api/tasks?{query}")).json()["items"]) == count


@pytest.mark.parametrize(
    "query", ["cursor=x", "cursor=1", "cursor=-1.t", "cursor=99999999999999999999.t", "limit=0", "limit=201", "limit=x"]
)
async def test_a_page_that_can_not_be_is_the_callers_mistake(echo: House, query: str) -> None:
    answer = await get(echo, f"/api/tasks?{query}")
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


# a foreign task is answered exactly as one that does not exist
@pytest.mark.parametrize("suffix", ["", "/events", "/trace"])
@pytest.mark.parametrize("user", ["bob", "nora"])
async def test_a_foreign_task_is_unknown_at_every_path(echo: House, suffix: str, user: str) -> None:
    (task_id,) = await asked(echo)
    foreign, unknown = await get(echo, f"/api/tasks/{task_id}{suffix}", user), await get(echo, f"/api/tasks/t_0{suffix}", user)
    assert (foreign.status_code, foreign.json()) == (404, unknown.json())
    assert foreign.json()["reason_id"] == "unknown"


async def test_the_same_name_in_another_tenant_is_another_person(echo: House) -> None:
    (task_id,) = await asked(echo)
    assert (await get(echo, f"/api/tasks/{task_id}", token=echo.token("alice", tenant="other"))).status_code == 404


async def test_a_token_for_less_sees_less(echo: House) -> None:
    (task_id,) = await asked(echo)
    narrow = echo.token("alice", scope="tool:*")
    assert (await get(echo, f"/api/tasks/{task_id}", token=narrow)).status_code == 404
    assert (await get(echo, "/api/tasks", token=narrow)).json()["items"] == []


async def test_without_a_token_nothing_is_told(echo: House) -> None:
    for path in ("/api/tasks", "/api/tasks/t_0", "/api/decisions/d_0", "/api/audit"):
        assert (await echo.http.get(path)).status_code == 401


async def test_a_hop_token_made_for_an_agent_does_not_open_the_api(home: House) -> None:
    agent = await home.agent(CallbackAgent("echo"))
    await asked(home)
    assert (await get(home, "/api/tasks", token=agent.tokens[0])).status_code == 401


async def test_events_are_numbered_and_can_be_taken_up_after_any_of_them(echo: House) -> None:
    (task_id,) = await asked(echo)
    path = f"/api/tasks/{task_id}/events"
    whole = await get(echo, path)
    assert whole.headers["content-type"].startswith("text/event-stream")
    events = events_of(whole.text)
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    assert all(data["seq"] == number and data["kind"] == kind and kind in data for number, kind, data in events)
    assert events[-1][2]["status"]["state"] == "TASK_STATE_COMPLETED"
    for after in (1, len(events) - 1):
        assert events_of((await get(echo, path, Last_Event_ID=str(after))).text) == events[after:]


async def test_events_are_a_list_where_json_is_asked_for(echo: House) -> None:
    (task_id,) = await asked(echo)
    path = f"/api/tasks/{task_id}/events"
    listed = (await get(echo, path, accept="application/json")).json()
    assert listed["items"] == [data for _, _, data in events_of((await get(echo, path)).text)]
    assert listed["next"] is None


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "9" * 40])
async def test_a_last_event_id_that_is_no_number_begins_at_the_beginning(echo: House, text: str) -> None:
    (task_id,) = await asked(echo)
    headers = {"authorization": f"Bearer {echo.token('alice')}", "last-event-id": text.encode()}
    answer = await echo.http.get(f"/api/tasks/{task_id}/events", headers=headers)  # type: ignore[arg-type]  # raw bytes are what is tested
    assert events_of(answer.text)[0][0] == 1


def test_an_artifact_says_whether_it_goes_on() -> None:
    body = '{"artifactId":"a","parts":[{"text":"x"}]}'
    found = event_json(TaskEvent(3, 0, "artifact", body, is_append=True))
    assert found["artifact"] == {"artifactId": "a", "parts": [{"text": "x"}]}
    assert (found["append"], found["last_chunk"], found["at"]) == (True, False, "1970-01-01T00:00:00.000Z")


def test_the_status_of_an_agent_that_answered_with_a_message_says_so_beside_it() -> None:
    found = event_json(TaskEvent(3, 0, "status", '{"state":"TASK_STATE_COMPLETED","timestamp":""}', is_reply=True))
    assert found["status"] == {"state": "TASK_STATE_COMPLETED", "timestamp": ""} and found["replied"] is True


class Source:
    """Events as the test hands them over; knows whether it was let go."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[TaskEvent] = asyncio.Queue()
        self.closed = asyncio.Event()

    async def follow(self) -> AsyncIterator[TaskEvent]:
        try:
            while True:
                yield await self.events.get()
        finally:
            self.closed.set()


async def test_a_quiet_stream_shows_that_it_lives_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "KEEPALIVE_SECONDS", 0.01)
    source = Source()
    stream = _sse_lines(source.follow())
    assert await anext(stream) == ": still here\n\n"
    source.events.put_nowait(TaskEvent(1, 0, "status", "{}"))
    async with asyncio.timeout(60):
        lines = [text async for text in _until_event(stream)]
    assert lines[-1].startswith("id: 1\nevent: status\ndata: {")


async def _until_event(stream: AsyncIterator[str]) -> AsyncIterator[str]:
    async for text in stream:
        yield text
        if text.startswith("id:"):
            return


async def test_a_listener_who_leaves_lets_the_log_go() -> None:
    source = Source()
    source.events.put_nowait(TaskEvent(1, 0, "status", "{}"))
    stream = _sse_lines(source.follow())
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]  # it is an async generator
    async with asyncio.timeout(60):
        assert await source.closed.wait()
