"""A gateway whose settings name a source of events, a webhook and triggers."""

import base64
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.events.standard_webhooks import read_secrets, sign
from tests.fakes.house import House, house

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(bytes(range(100, 132))).decode()
SECRET_NAME = "INTERLOCK_TEST_EVENT_SECRET"
SERVICES = {
    "nightly": {"roles": ["worker"], "ceiling": ["agent:*", "tool:*", "state:*"]},
    "blind": {"roles": ["sightless"]},
    "auditor": {"roles": ["auditor"]},
}
ROLES = {
    "operator": ["*"],
    "member": ["agent:*", "tool:*", "state:read:events/*"],
    "worker": ["agent:*", "tool:*", "state:read:events/*"],
    "sightless": ["agent:*"],
    "auditor": ["agent:*", "tool:*", "state:read:events/*", "audit:read"],
    "approver": ["agent:*", "approval:decide", "state:read:events/*", "state:write:events/*"],
}
USERS = {"alice": {"roles": ["member"]}, "bob": {"roles": ["member"]}, "ada": {"roles": ["approver"]}, "eve": {"roles": ["approver"]}}


@asynccontextmanager
async def event_house(folder: Path, database_url: str, **settings: Any) -> AsyncIterator[House]:
    """A house whose secrets of events are SECRET."""
    os.environ[SECRET_NAME] = SECRET
    given = {"service_principals": SERVICES, "roles": ROLES, "users": USERS, **settings}
    try:
        async with house(folder / "home", database_url, **given) as built:
            yield built
    finally:
        os.environ.pop(SECRET_NAME, None)


def source(**more: Any) -> dict[str, Any]:
    """The settings of events with the source `crm`."""
    return {"sources": {"crm": {"secret": f"env:{SECRET_NAME}", "types": ["crm.*"], **more}}}


def payload(kind: str = "crm.contact.created", **data: Any) -> bytes:
    return json.dumps({"type": kind, "timestamp": "2026-01-31T12:00:00Z", "data": data}).encode()


def signed(body: bytes, id: str = "msg_1", *, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    """The headers of a request that a system has signed."""
    return sign(read_secrets(secret), id, int(time.time() if at is None else at), body)


async def deliver(home: House, body: bytes, headers: dict[str, str], name: str = "crm") -> httpx.Response:
    """Sends a webhook without a token."""
    return await home.http.post(f"/api/events/sources/{name}", content=body, headers={"content-type": "application/json", **headers})


async def stored(home: House, user: str = "admin", kind: str = "") -> list[dict[str, Any]]:
    """The events that a person sees, the oldest first."""
    answer = await home.http.get(f"/api/events?limit=200&type={kind}", headers={"authorization": f"Bearer {home.token(user)}"})
    assert answer.status_code == 200, answer.text
    return [item["event"] for item in reversed(answer.json()["items"])]


async def send_event(home: House, number: int = 1, kind: str = "shop.paid", user: str = "admin", **more: Any) -> httpx.Response:
    event = {"specversion": "1.0", "id": f"e{number}", "source": "https://shop.example", "type": kind, **more}
    return await home.http.post("/api/events", json=event, headers={"authorization": f"Bearer {home.token(user)}"})


async def triggers(home: House, user: str = "admin") -> dict[str, dict[str, Any]]:
    answer = await home.http.get("/api/triggers", headers={"authorization": f"Bearer {home.token(user)}"})
    assert answer.status_code == 200, answer.text
    return {each["name"]: each for each in answer.json()["items"]}


async def dead_letters(home: House) -> list[dict[str, Any]]:
    answer = await home.http.get("/api/deadletters", headers={"authorization": f"Bearer {home.token('admin')}"})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["items"])
