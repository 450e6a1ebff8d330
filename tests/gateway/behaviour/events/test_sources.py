"""Webhooks of other systems: a signature in place of a token, the types and the schema of the source, and no replay."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.server.composition.process import Gateway
from gateway.server.settings import BadSettings, Settings
from tests.fakes.event_house import OTHER_SECRET, SECRET_NAME, deliver, event_house, payload, send_event, signed, source, stored
from tests.fakes.house import House
from tests.gateway.ingress.admin.test_tasks import get

SCHEMA = {"type": "object", "properties": {"id": {"type": "integer"}, "mail": {"pattern": "^[^@]+@[^@]+$"}}, "required": ["id"]}


@pytest.fixture
async def crm(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    events = source(schema=SCHEMA, subject="customer/{data.id}")
    async with event_house(tmp_path, database_url, events=events) as built:
        yield built


async def refused(home: House, body: bytes, headers: dict[str, str], name: str = "crm") -> tuple[int, str]:
    """The refusal of a webhook, after which nothing is stored."""
    answer = await deliver(home, body, headers, name)
    assert await stored(home) == []
    return answer.status_code, answer.json()["reason_id"]


async def test_a_signed_webhook_becomes_an_event_of_its_source(crm: House) -> None:
    answer = await deliver(crm, body := payload(id=42), signed(body))
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "repeated": 0, "not_started": []})
    (event,) = await stored(crm)
    named = {name: event[name] for name in ("id", "source", "type", "subject", "time", "data")}
    expected = {"id": "msg_1", "source": "urn:interlock:source:crm", "type": "crm.contact.created", "subject": "customer/42"}
    assert named == {**expected, "time": "2026-01-31T12:00:00Z", "data": {"id": 42}}


async def test_the_same_request_again_is_refused_as_a_replay(crm: House) -> None:  # attack WFL-03
    headers = signed(body := payload(id=42))
    assert (await deliver(crm, body, headers)).status_code == 202
    again = await deliver(crm, body, headers)
    assert (again.status_code, again.json()["reason_id"]) == (409, "event-replayed")
    assert len(await stored(crm)) == 1


async def test_a_request_that_is_signed_anew_under_a_known_id_does_nothing(crm: House) -> None:
    body = payload(id=42)
    assert (await deliver(crm, body, signed(body))).status_code == 202
    later = await deliver(crm, body, signed(body, at=time.time() + 9))
    assert (later.status_code, later.json()["repeated"]) == (202, 1)
    other = payload(id=43)
    changed = await deliver(crm, other, signed(other, at=time.time() + 9.5))
    assert changed.status_code == 409
    assert [event["data"] for event in await stored(crm)] == [{"id": 42}]


async def test_a_forged_late_or_missing_signature_is_refused(crm: House) -> None:  # attack WFL-03
    body, unsigned = payload(id=42), (401, "webhook-signature")
    changes: list[dict[str, Any]] = [{"secret": OTHER_SECRET}, {"at": time.time() - 400}, {"at": time.time() + 400}]
    for change in changes:
        assert await refused(crm, body, signed(body, **change)) == unsigned
    assert await refused(crm, body, signed(payload(id=43))) == unsigned
    assert await refused(crm, body, {"authorization": f"Bearer {crm.token('admin')}"}) == unsigned


async def test_an_unknown_source_is_refused(crm: House) -> None:
    assert await refused(crm, body := payload(id=42), signed(body), "shop") == (404, "unknown")


REFUSED = [
    (payload("shop.paid", id=1), (403, "event-type")),
    (payload("interlock.task.ended.v1", id=1), (422, "bad-event")),
    (payload("Interlock.task.ended.v1", id=1), (422, "bad-event")),
    (payload(id="one"), (422, "event-schema")),
    (payload(id=1, mail="nobody"), (422, "event-schema")),
    (payload(), (422, "event-schema")),
    (b'{"data": {"id": 1}}', (422, "bad-event")),
    (b"[]", (422, "bad-event")),
    (b'{"type": 7, "data": {"id": 1}}', (422, "bad-event")),
    (b'{"type": "crm.x", "type": "crm.y"}', (400, "bad-json")),
    (b"x" * 70_000, (413, "body-too-large")),
]


async def test_what_a_source_may_not_send_is_refused(crm: House) -> None:
    for number, (body, refusal) in enumerate(REFUSED):
        assert await refused(crm, body, signed(body, f"msg_{number}")) == refusal


async def test_data_without_a_member_of_the_schema_is_answered_with_its_name(crm: House) -> None:
    answer = await deliver(crm, body := payload(mail="ann@example.com"), signed(body))
    assert answer.json()["detail"].endswith("at /: it lacks `id`")
    wrong = await deliver(crm, body := payload(id=1, mail="nobody"), signed(body, "msg_2"))
    assert wrong.json()["detail"].endswith("at /mail: it breaks `pattern`")


async def test_a_source_that_sends_events_itself_does_not_choose_their_source(crm: House) -> None:
    event = {
        "specversion": "1.0",
        "id": "x",
        "source": "urn:interlock:gateway",
        "type": "crm.won",
        "subject": "customer/1",
        "data": {"id": 9},
    }
    body = json.dumps(event).encode()
    answer = await deliver(crm, body, {**signed(body), "content-type": "application/cloudevents+json"})
    assert answer.status_code == 202, answer.text
    (kept,) = await stored(crm)
    assert (kept["id"], kept["source"], kept["subject"]) == ("msg_1", "urn:interlock:source:crm", "customer/9")
    assert kept["sentsource"] == "urn:interlock:gateway"


async def test_headers_that_nothing_signs_say_nothing_of_the_event(crm: House) -> None:
    headers = {"ce-specversion": "1.0", "ce-type": "crm.other", "ce-id": "x", "ce-source": "s"}
    body = payload(id=1)
    assert (await deliver(crm, body, {**signed(body), **headers})).status_code == 202
    assert [event["type"] for event in await stored(crm)] == ["crm.contact.created"]


async def test_a_person_can_not_send_under_the_name_of_a_source(crm: House) -> None:
    answer = await send_event(crm, source="urn:interlock:source:crm")
    assert (answer.status_code, answer.json()["reason_id"]) == (422, "bad-event")


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ({"sources": {"crm": {"secret": "env:INTERLOCK_TEST_NOT_SET", "types": ["crm.*"]}}}, "events.sources.crm.secret"),
        ({"webhooks": [{"url": "https://hook.example", "secret": "env:PATH", "types": ["*"]}]}, r"events.webhooks\[0\].secret"),
    ],
)
def test_a_secret_that_can_not_be_used_stops_the_start(tmp_path: Path, events: Any, problem: str) -> None:
    with pytest.raises(BadSettings, match=problem):
        Gateway(Settings(home=tmp_path / "home", events=events))


def test_a_schema_that_can_not_be_used_stops_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET_NAME, OTHER_SECRET)
    for schema in ({"type": "nothing"}, {"$ref": "https://elsewhere.example/schema"}):
        with pytest.raises(BadSettings, match=r"events\.sources\.crm\.schema"):
            Gateway(Settings(home=tmp_path / "home", events=source(schema=schema)))


def test_workers_get_the_settings_of_events_as_they_are() -> None:
    chosen = Settings(
        events=source(schema=SCHEMA), service_principals={"n": {}}, triggers=[{"name": "t", "type": "x", "run_as": "n", "agent": "a"}]
    )
    assert Settings.model_validate_json(chosen.model_dump_json()) == chosen


async def test_people_see_the_sources_of_what_they_may_receive(crm: House) -> None:
    tokens = (crm.token("admin"), crm.token("admin", scope="agent:* state:read:events/shop.*"))
    shown = [(await get(crm, "/api/events/sources", token=each)).json()["items"] for each in tokens]
    expected = {"name": "crm", "subject": "customer/{data.id}", "source": "urn:interlock:source:crm", "path": "/api/events/sources/crm"}
    assert [{name: each[name] for name in expected} for each in shown[0]] == [expected]
    assert (shown[1], SECRET_NAME in str(shown)) == ([], False)
    assert (await get(crm, "/api/events/sources", token=crm.token("admin", tenant="other"))).json()["items"] == []
