"""Pages over large data: an artifact of 50 MB, and lists of 100,000 rows."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, update

from gateway.storage.tables import task_events, tasks
from policies.ids import now_us
from policies.strict_json import LARGE as THREAD_FROM
from tests.fakes.console import ConsoleBrowser
from tests.fakes.house import CallbackAgent, House

LARGE = 50 << 20
ROWS = 100_000
PAGE_MAX = 1 << 20  # bytes of any page


async def finished_task(home: House) -> str:
    await home.agent(CallbackAgent("sales"))
    return str((await home.send(home.token("alice"), "sales", "hello"))["result"]["task"]["id"])


@pytest.mark.parametrize("member", ["text", "raw"])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_page_is_bounded_whatever_the_size_of_an_artifact(home: House, member: str) -> None:
    task = await finished_task(home)
    body = json.dumps({"artifactId": "large", "name": "large", "parts": [{member: "A" * LARGE}]})
    match = (task_events.c.task_id == task) & (task_events.c.kind == "artifact")
    with home.gateway.database.engine.begin() as connection:
        assert connection.execute(update(task_events).where(match).values(body=body)).rowcount == 1
    browser = await ConsoleBrowser(home).sign_in("alice")
    page = await browser.get(f"/console/tasks/{task}")
    assert (page.status_code, "Artifacts" in page.text) == (200, True)
    assert len(page.content) < PAGE_MAX
    twin = await browser.get(f"/console/api/tasks/{task}")
    assert twin.json()["artifacts"][0]["parts"][0][member] == "A" * LARGE


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_large_artifact_is_encoded_and_decoded_in_a_thread(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    task = await finished_task(home)
    body = json.dumps({"artifactId": "large", "parts": [{"text": "A" * (2 * THREAD_FROM)}]})
    match = (task_events.c.task_id == task) & (task_events.c.kind == "artifact")
    with home.gateway.database.engine.begin() as connection:
        connection.execute(update(task_events).where(match).values(body=body))
    browser, threads = await ConsoleBrowser(home).sign_in("alice"), list[threading.Thread]()
    for name, size_of in (("loads", lambda given, _result: len(given)), ("dumps", lambda _given, result: len(result))):
        monkeypatch.setattr(json, name, _recording(getattr(json, name), size_of, threads))
    assert (await browser.get(f"/console/tasks/{task}")).status_code == 200
    assert threads and threading.main_thread() not in threads


def _recording(act: Callable[..., Any], size_of: Callable[[Any, Any], int], threads: list[threading.Thread]) -> Callable[..., Any]:
    """Returns `act`, which notes its thread where what it works on is large."""

    def recorded(given: Any, **options: Any) -> Any:
        result = act(given, **options)
        if size_of(given, result) > THREAD_FROM:
            threads.append(threading.current_thread())
        return result

    return recorded


def _rows(template: dict[str, Any], count: int) -> list[dict[str, Any]]:
    now = now_us()
    return [{**template, "id": f"t_bulk{number:026}", "created": now - number, "updated": now - number} for number in range(count)]


async def test_a_list_of_100_000_tasks_is_read_page_by_page(home: House) -> None:
    task = await finished_task(home)
    with home.gateway.database.engine.begin() as connection:
        row = dict(connection.execute(tasks.select().where(tasks.c.id == task)).one()._mapping)
        connection.execute(insert(tasks), _rows(row, ROWS))
    browser = await ConsoleBrowser(home).sign_in("alice")
    seen, address = set[str](), "/console/api/tasks?limit=200"
    for _ in range(3):
        answer = (await browser.get(address)).json()
        seen |= {each["id"] for each in answer["items"]}
        address = f"/console/api/tasks?limit=200&cursor={answer['next']}"
    assert len(seen) == 600
    page = await browser.get(f"/console/tasks?cursor={answer['next']}")
    assert (page.status_code, 'rel="next"' in page.text, len(page.content) < PAGE_MAX) == (200, True, True)
    assert not any(f"/console/tasks/{each}" in page.text for each in seen)
    last = await browser.get(f"/console/api/tasks?limit=200&cursor={row['updated'] - 10}.t_bulk{0:026}")
    assert last.status_code == 200
