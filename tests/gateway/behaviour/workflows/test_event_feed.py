"""People see the events that they may receive, page by page and as they come, and what an event would start."""

import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.workflows import event_operations
from tests.fakes.house import CallbackAgent, House, house, two
from tests.fakes.waiting import until
from tests.fakes.workflows import Workflows

ROLES = {
    "operator": ["*"],
    "member": ["agent:*"],
    "reader": ["agent:*", "state:read:events/*"],
    "buyer": ["agent:seen", "state:read:events/shop.*", "state:read:events/shop.paid"],
}
USERS = {"alice": {"roles": ["reader"]}, "bob": {"roles": ["buyer"]}, "carl": {"roles": ["member"]}}
SERVICES = {"nightly": {"roles": ["reader"], "ceiling": ["agent:*", "state:*"]}, "blind": {"roles": ["member"]}}
HEAD = "document: {dsl: 1.0.3, namespace: tests, name: %s, version: 1.0.0, metadata: {gateway: {runAs: %s}}}\n"
PAUSE = "do:\n- pause: {wait: P1D}\n"
ON = "schedule: {on: {one: {with: {type: shop.paid, source: 'https://shop.example', data: '${ .amount > 10 }'}}}}\n"


@pytest.fixture
async def shop(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(event_operations, "STREAM_ROUNDS", 1)
    monkeypatch.setattr(event_operations, "POLL_SECONDS", 0)
    async with house(tmp_path / "home", database_url, service_principals=SERVICES, roles=ROLES, users=USERS) as built:
        yield built


def event(kind: str, number: int = 1, **data: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": f"e{number}", "source": "https://shop.example", "type": kind, "data": data}


async def ask(home: House, method: str, path: str, user: str = "admin", body: Any = None) -> Any:
    answer = await Workflows(home).desk.ask(method, path, user, body)
    assert answer.status_code < 300, answer.text
    return answer.json()


async def streamed(home: House, user: str = "admin", last: str = "0", path: str = "/api/events") -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {home.token(user)}", "accept": "text/event-stream", "last-event-id": last}
    answer = await home.http.request("GET", path, headers=headers)
    assert answer.status_code == 200, answer.text
    found = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert [f"id: {each['id']}" for each in found] == [line for line in answer.text.splitlines() if line.startswith("id: ")]
    return found


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [each["event"]["id"] for each in items]


async def added(home: House, name: str, schedule: str, service: str = "nightly") -> None:
    await ask(home, "POST", "/api/workflows", "admin", {"document": HEAD % (name, service) + schedule + PAUSE})
    await home.gateway.database.refresh_epochs()


async def test_events_are_listed_the_newest_first_in_pages(shop: House) -> None:
    for number in range(5):
        await ask(shop, "POST", "/api/events", "admin", event("shop.paid", number))
    await ask(shop, "POST", "/api/events", "admin", event("shop.other", 9))
    first = await ask(shop, "GET", "/api/events?limit=3&type=shop.paid")
    assert ids(first["items"]) == ["e4", "e3", "e2"]
    second = await ask(shop, "GET", f"/api/events?limit=3&type=shop.paid&cursor={first['next']}")
    assert ids(second["items"]) == ["e1", "e0"] and second["next"] is None
    assert first["items"][0]["sender"].endswith("|admin") and first["items"][0]["at"]
    assert (await Workflows(shop).desk.ask("GET", "/api/events?cursor=x")).status_code == 400


async def test_people_see_the_types_that_they_may_receive_with_secrets_masked(shop: House) -> None:
    await ask(shop, "POST", "/api/events", "admin", [event("shop.paid", 1, password="hunter2"), event("hr.hired", 2)])
    assert ids((await ask(shop, "GET", "/api/events", "bob"))["items"]) == ["e1"] == ids(await streamed(shop, "bob"))
    assert ids((await ask(shop, "GET", "/api/events", "alice"))["items"]) == ["e2", "e1"]
    assert (await ask(shop, "GET", "/api/events", "carl"))["items"] == [] == await streamed(shop, "carl")
    assert "hunter2" not in json.dumps(await ask(shop, "GET", "/api/events")) + json.dumps(await streamed(shop))


async def test_events_of_types_that_a_reader_may_not_receive_are_not_decoded(shop: House) -> None:
    await ask(shop, "POST", "/api/events", "admin", [event("shop.paid", 1), event("hr.hired", 2)])
    await shop.gateway.database.write(lambda batch: batch.run("UPDATE workflow_events SET event = '{' WHERE type = ?", ("hr.hired",)))
    assert ids((await ask(shop, "GET", "/api/events", "bob"))["items"]) == ["e1"] == ids(await streamed(shop, "bob"))


async def test_a_stream_goes_on_after_the_event_that_the_reader_names(shop: House) -> None:
    await ask(shop, "POST", "/api/events", "admin", [event("shop.paid", number) for number in range(3)])
    found = await streamed(shop)
    assert ids(found) == ["e0", "e1", "e2"]
    assert ids(await streamed(shop, last=found[0]["id"])) == ["e1", "e2"]
    assert await streamed(shop, last="") == []
    assert await streamed(shop, path="/api/events?type=shop.other") == []


async def test_the_numbers_of_events_are_never_given_again(shop: House) -> None:
    await ask(shop, "POST", "/api/events", "admin", event("shop.paid", 1))
    last = (await streamed(shop))[-1]["id"]
    await Workflows(shop).pass_time(8 * 86_400)
    await shop.gateway.workflows.prune_events()
    await ask(shop, "POST", "/api/events", "admin", event("shop.paid", 2))
    assert ids(await streamed(shop, last=last)) == ["e2"]


async def test_an_agent_sees_no_events(shop: House) -> None:
    seen: list[int] = []

    async def look(token: str, _text: str) -> str:
        answer = await shop.http.request("GET", "/api/events", headers={"authorization": f"Bearer {token}"})
        seen.append(answer.status_code)
        return "looked"

    await shop.agent(CallbackAgent("spy", look))
    await shop.send(shop.token("alice"), "spy", "look")
    assert seen and all(status in (401, 403) for status in seen)


async def has_been_tried(shop: House, workflow: str) -> bool:
    """Whether the gateway, which starts runs beside the sender's request, has started the run of a workflow, or could not."""
    triggers = {each["workflow"]: each for each in (await ask(shop, "GET", "/api/triggers"))["items"]}
    return bool(triggers[workflow]["last_run"] or triggers[workflow]["problem"])


async def test_triggers_say_what_starts_which_workflow(shop: House) -> None:
    await added(shop, "seen", ON)
    await added(shop, "hourly", "schedule: {every: PT1H}\n")
    await added(shop, "unseen", "schedule: {cron: '0 6 * * *'}\n", "blind")
    await ask(shop, "POST", "/api/events", "admin", event("shop.paid", 1, amount=11))
    await until(partial(has_been_tried, shop, "seen"))
    shown = {each["workflow"]: each for each in (await ask(shop, "GET", "/api/triggers", "alice"))["items"]}
    assert shown["seen"]["event_types"] == ["shop.paid"] and shown["seen"]["last_run"] and shown["seen"]["next_at"] is None
    assert shown["hourly"]["every_seconds"] == 3600 and shown["hourly"]["next_at"] and shown["hourly"]["last_run"] is None
    assert shown["unseen"]["cron"] == "0 6 * * *" and shown["unseen"]["run_as"] == "blind"
    assert [each["workflow"] for each in (await ask(shop, "GET", "/api/triggers", "bob"))["items"]] == ["seen"]


async def test_a_refused_start_is_shown_at_its_trigger(shop: House) -> None:
    await added(shop, "flow", ON, "blind")
    await ask(shop, "POST", "/api/events", "admin", event("shop.paid", 1, amount=11))
    await until(partial(has_been_tried, shop, "flow"))
    (trigger,) = (await ask(shop, "GET", "/api/triggers"))["items"]
    assert trigger["problem"].startswith("CallRefused") and trigger["last_run"] is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"type": "shop.other"}, "it starts by events of the type shop.paid"),
        ({"source": "https://other.example"}, "another attribute differs from the one that `with` names"),
        ({"data": {"amount": 1}}, "an expression of `with` does not hold"),
    ],
)
async def test_a_test_says_what_an_event_would_start_and_starts_nothing(shop: House, change: dict[str, Any], reason: str | None) -> None:
    await added(shop, "seen", ON)
    found = await ask(shop, "POST", "/api/triggers/test", "bob", event("shop.paid", 1, amount=11) | change)
    (item,) = found["items"]
    assert (item["workflow"], item["starts"], item["reason"]) == ("seen", reason is None, reason)
    assert (await ask(shop, "GET", "/api/events"))["items"] == []
    assert (await ask(shop, "GET", "/api/triggers"))["items"][0]["last_run"] is None


async def test_a_test_says_whom_a_right_is_missing(shop: House) -> None:
    await added(shop, "flow", ON, "blind")
    found = await ask(shop, "POST", "/api/triggers/test", "admin", event("shop.paid", 1, amount=11))
    assert found["items"][0]["reason"] == "the service principal blind lacks state:read:events/shop.paid"
    answer = await Workflows(shop).desk.ask("POST", "/api/triggers/test", "admin", {"type": "x"})
    assert (answer.status_code, answer.json()["reason_id"]) == (422, "bad-event")


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_processes_give_each_event_one_number(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_operations, "STREAM_ROUNDS", 1)
    async with two(tmp_path, database_url) as (one, other):
        await ask(one, "POST", "/api/events", "admin", [event("shop.paid", number) for number in range(3)])
        await ask(other, "POST", "/api/events", "admin", [event("shop.paid", number) for number in range(3, 6)])
        assert await streamed(one) == await streamed(other)
        assert sorted(ids(await streamed(one))) == [f"e{number}" for number in range(6)]
