"""CloudEvents over HTTP: binary, structured and batched, and what is none of them."""

import json
from typing import Any

import httpx
from sqlalchemy.event import listen

from tests.fakes.event_house import stored
from tests.fakes.house import House

HEADERS = {"ce-specversion": "1.0", "ce-id": "b1", "ce-source": "https://shop.example", "ce-type": "shop.paid"}
EVENT = {"specversion": "1.0", "id": "s1", "source": "https://shop.example", "type": "shop.paid", "data": {"a": 1}}


async def send(home: House, body: bytes, **headers: str) -> httpx.Response:
    sent = {"authorization": f"Bearer {home.token('admin')}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return await home.http.post("/api/events", content=body, headers=sent)


async def kept(home: House, body: bytes, **headers: str) -> dict[str, Any]:
    """The event that a request becomes."""
    answer = await send(home, body, **headers)
    assert answer.status_code == 202, answer.text
    return (await stored(home))[-1]


async def test_the_headers_of_a_binary_request_are_its_attributes(home: House) -> None:
    more = {"ce-subject": "%E2%82%AC%20order", "ce-ordernumber": '"7"', "ce-time": "2026-01-31T12:00:00Z"}
    event = await kept(home, b'{"a": 1}', **HEADERS, **more, content_type="application/json; charset=utf-8")
    attributes = {"specversion": "1.0", "id": "b1", "source": "https://shop.example", "type": "shop.paid", "subject": "€ order"}
    rest = {"ordernumber": "7", "time": "2026-01-31T12:00:00Z", "datacontenttype": "application/json; charset=utf-8", "data": {"a": 1}}
    assert event == attributes | rest


BODIES = [
    ("application/vnd.shop+json", b'"x"', {"data": "x"}),
    ("text/plain", "naïve".encode(), {"data": "naïve"}),
    ("text/plain", b"\xff", {"data_base64": "/w=="}),
    ("application/octet-stream", b"\x00\x01", {"data_base64": "AAE="}),
    ("application/json", b"", {}),
]


async def test_the_body_of_a_binary_request_is_its_data(home: House) -> None:
    for number, (media_type, body, member) in enumerate(BODIES):
        event = await kept(home, body, **HEADERS | {"ce-id": f"b{number}"}, content_type=media_type)
        assert {name: event[name] for name in ("data", "data_base64") if name in event} == member


REQUESTS = [
    (json.dumps(EVENT), "application/cloudevents+json; charset=utf-8", 1),
    (json.dumps([EVENT, EVENT | {"id": "s2"}]), "application/cloudevents-batch+json", 2),
    (json.dumps([EVENT, EVENT | {"id": "s2"}]), "application/json", 2),
    (json.dumps(EVENT), "application/json", 1),
]


async def test_structured_and_batched_events_are_taken(home: House) -> None:
    for body, media_type, count in REQUESTS:
        answer = await send(home, body.encode(), content_type=media_type)
        assert (answer.status_code, answer.json()["accepted"]) == (202, count), answer.text


REFUSED: list[tuple[bytes, dict[str, str], str]] = [
    (b"{}", HEADERS | {"ce-data": "x"}, "its data is the body"),
    (b"{}", HEADERS | {"ce-type": ""}, "is no text"),
    (b"{", HEADERS | {"content-type": "application/json"}, "is no JSON"),
    (b"{}", HEADERS | {"ce-subject": "%ff"}, "percent-encoded"),
    (b"{}", HEADERS | {"ce-subject": "x" * 4000}, "characters"),
    (b"{}", HEADERS | {"ce-interlockhops": "1"}, "only the gateway sets"),
    (b"{}", HEADERS | {"ce-interlockowner": "default|x|alice"}, "only the gateway sets"),
    (b"{}", HEADERS | {"ce-type": "interlock.task.ended.v1"}, "only the gateway's own events have"),
    (b"{}", HEADERS | {"ce-type": "INTERLOCK.x"}, "only the gateway's own events have"),
    (b"{}", HEADERS | {"ce-source": "URN:Interlock:gateway"}, "only the gateway's own events have"),
    (b"{}", {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "s"}, "lacks the attribute `type`"),
    (json.dumps([EVENT]).encode(), {"content-type": "application/cloudevents+json"}, "is a JSON array"),
    (json.dumps(EVENT).encode(), {"content-type": "application/cloudevents-batch+json"}, "is no JSON array"),
]


async def test_what_is_no_event_in_its_mode_is_refused(home: House) -> None:
    for body, headers, problem in REFUSED:
        answer = await send(home, body, **headers)
        assert (answer.status_code, answer.json()["reason_id"]) == (422, "bad-event"), answer.text
        assert problem in answer.json()["detail"]
    assert await stored(home) == []


async def test_an_attribute_that_is_sent_twice_is_refused(home: House) -> None:
    headers = [("authorization", f"Bearer {home.token('admin')}"), *HEADERS.items(), ("ce-type", "shop.other")]
    answer = await home.http.post("/api/events", content=b"{}", headers=headers)
    assert answer.status_code == 400, answer.text


async def test_no_workflow_emits_an_event_of_the_gateways_own(home: House) -> None:
    head = "document: {dsl: 1.0.3, namespace: t, name: forger, version: 1.0.0}\n"
    headers = {"authorization": f"Bearer {home.token('admin')}"}
    for kind in ("interlock.task.ended.v1", "Interlock/x"):
        text = head + "do:\n- tell: {emit: {event: {with: {type: KIND}}}}\n".replace("KIND", kind)
        answer = await home.http.post("/api/workflows", json={"document": text}, headers=headers)
        assert (answer.status_code, answer.json()["problems"][0]["path"]) == (422, "/do/0/tell/emit/event/with/type"), answer.text


async def test_refusals_of_events_are_problem_documents_with_the_id_of_the_request(home: House) -> None:
    wrong = {"authorization": "Bearer nothing", "x-request-id": "r-1"}
    for path in ("/api/events", "/api/events/sources/nobody"):
        answer = await home.http.post(path, json=EVENT, headers=wrong)
        shown = (answer.headers["content-type"], answer.headers["x-request-id"], answer.headers["cache-control"])
        assert shown == ("application/problem+json", "r-1", "no-store")
        assert answer.status_code == (401 if path == "/api/events" else 404)
    unauthenticated = await home.http.post("/api/events", json=EVENT)
    assert unauthenticated.headers["www-authenticate"].startswith("Bearer")
    assert (await home.http.put("/api/events", json=EVENT)).status_code == 405


async def test_an_event_and_the_ruling_on_it_are_one_commit(home: House) -> None:
    commits = 0

    def count(*_: object) -> None:
        nonlocal commits
        commits += 1

    await send(home, json.dumps(EVENT).encode())  # what a first request loads and records
    await home.gateway.periodic_tasks.stop()
    listen(home.gateway.database.engine, "commit", count)
    assert (await send(home, json.dumps(EVENT | {"id": "s9"}).encode())).status_code == 202
    assert commits == 1
