"""Forms of memory, schedules, dead letters and the own account: each does what its page says, with the rights of /api."""

from typing import Any

import pytest
from sqlalchemy import insert, update

from gateway.events.tables import event_starts
from gateway.ingress.oauth.sign_in.tables import sign_in_sessions
from gateway.workflows.runs.tables import workflow_schedules, workflow_starts
from tests.fakes.console import DEAD_START, HOSTILE, NIGHTLY, ConsoleBrowser
from tests.fakes.house import House
from tests.fakes.reception import Reception

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def remember(home: House, text: str, user: str = "alice") -> dict[str, Any]:
    put = await Reception(home).post("/api/memory", user, text=text)
    assert put.status_code == 201, put.text
    return dict(put.json())


async def test_a_fact_is_corrected_as_it_was_seen_and_forgotten(home: House) -> None:
    fact = await remember(home, "likes tea")
    browser, page = await ConsoleBrowser(home).sign_in("alice"), f"/console/memory/{fact['id']}"
    assert "likes tea" in (await browser.get(page)).text
    form = {"act": "correct", "text": "likes coffee", "version": "1", "expires": "2030-01-01"}
    assert (await browser.post(page, form)).headers["location"] == f"{page}?done=corrected"
    shown = (await browser.get(page)).text
    assert "likes coffee" in shown and "likes tea" in shown and "01 Jan 2030" in shown
    assert (await browser.post(page, {**form, "text": "likes water"})).status_code == 412
    assert (await browser.post(page, {"act": "forget"})).headers["location"] == "/console/memory?done=forgotten"
    assert (await browser.get(page)).status_code == 404


@on_sqlite
async def test_facts_of_others_are_no_page(home: House) -> None:
    fact = await remember(home, "likes tea")
    browser = await ConsoleBrowser(home).sign_in("bob")
    await browser.get("/console/memory")
    shown, forgotten = (
        await browser.get(f"/console/memory/{fact['id']}"),
        await browser.post(f"/console/memory/{fact['id']}", {"act": "forget"}),
    )
    assert {shown.status_code, forgotten.status_code} <= {403, 404} and "likes tea" not in shown.text
    assert (await Reception(home).ask("GET", f"/api/memory/{fact['id']}", "alice")).status_code == 200


@on_sqlite
async def test_a_person_is_erased_only_where_the_box_is_ticked(home: House) -> None:
    await remember(home, "likes tea")
    browser = await ConsoleBrowser(home).sign_in("alice")
    await browser.get("/console/memory")
    assert (await browser.post("/console/memory", {"act": "erase"})).status_code == 403
    assert (await Reception(home).ask("GET", "/api/memory", "alice")).json()["items"]
    assert (await browser.post("/console/memory", {"act": "erase", "sure": "yes"})).status_code == 303
    assert (await Reception(home).ask("GET", "/api/memory", "alice")).json()["items"] == []


@on_sqlite
async def test_others_facts_are_erased_and_held_back_by_operators_alone(home: House) -> None:
    await remember(home, "likes tea")
    for user, status in (("bob", 403), ("admin", 303)):
        browser = await ConsoleBrowser(home).sign_in(user)
        await browser.get("/console/memory")
        assert (await browser.post("/console/memory", {"act": "hold", "agent": "sales", "reason": "wrong"})).status_code == status
        erased = await browser.post("/console/memory", {"act": "erase", "sure": "yes", "person": "default|interlock-development|alice"})
        assert erased.status_code == status
    held = (await Reception(home).ask("GET", "/api/memory/quarantines")).json()["items"]
    assert [(each["agent"], each["reason"]) for each in held] == [("sales", "wrong")]
    assert (await browser.post("/console/memory", {"act": "release", "agent": "sales"})).status_code == 303


async def due_nightly(home: House) -> None:
    """A schedule whose moment has come."""
    await home.gateway.periodic_tasks.stop()
    added = await Reception(home).post("/api/workflows", document=NIGHTLY)
    assert added.status_code == 201, added.text
    await home.gateway.database.refresh_epochs()
    with home.gateway.database.engine.begin() as connection:
        connection.execute(update(workflow_schedules).values(next_at=1))


def count_starts(home: House) -> int:
    with home.gateway.database.engine.connect() as connection:
        return len(connection.execute(workflow_starts.select()).all()) + len(
            connection.execute(workflow_schedules.select().where(workflow_schedules.c.last_run != "")).all()
        )


async def test_a_paused_schedule_starts_nothing_until_it_is_resumed(home: House) -> None:
    await due_nightly(home)
    browser = await ConsoleBrowser(home).sign_in("admin")
    await browser.get("/console/triggers")
    assert (await browser.post("/console/triggers/nightly", {"act": "pause"})).headers["location"].endswith("done=schedule-paused")
    await home.gateway.workflows.wake_once()
    assert count_starts(home) == 0
    [shown] = (await Reception(home).ask("GET", "/api/triggers")).json()["items"]
    assert shown["paused"]["by"] == "default|interlock-development|admin" and len(shown["upcoming"]) == 5
    assert "paused" in (await browser.get("/console/triggers")).text
    assert (await browser.post("/console/triggers/nightly", {"act": "resume"})).status_code == 303
    await home.gateway.workflows.wake_once()
    assert count_starts(home) == 1


@on_sqlite
async def test_only_operators_pause_a_schedule_that_is_there(home: House) -> None:
    await due_nightly(home)
    desk = Reception(home)
    assert (await desk.ask("POST", "/api/triggers/nightly/pause", "alice")).status_code == 403
    assert (await desk.ask("POST", "/api/triggers/nothing/pause")).status_code == 404
    assert (await desk.ask("GET", "/api/triggers")).json()["items"][0]["paused"] is None


@on_sqlite
async def test_a_test_of_triggers_says_what_would_start_and_stores_nothing(home: House) -> None:
    browser = await ConsoleBrowser(home).sign_in("admin")
    await browser.get("/console/triggers")
    answer = await browser.post("/console/triggers", {"type": "com.example.paid", "data": '{"amount": 7}'})
    assert answer.status_code == 200 and "would start nothing" in answer.text
    assert "com.example.paid" not in (await Reception(home).ask("GET", "/api/events")).text
    assert (await browser.post("/console/triggers", {"type": "x", "data": "{"})).status_code == 403
    assert "type" in (await browser.post("/console/triggers", {"type": HOSTILE[:100], "data": ""})).text


async def test_dead_letters_are_retried_and_dropped_by_operators(home: House) -> None:
    await home.gateway.periodic_tasks.stop()
    with home.gateway.database.engine.begin() as connection:
        connection.execute(insert(event_starts), [DEAD_START, {**DEAD_START, "id": "dl_two", "start": "t"}])
    others = await ConsoleBrowser(home).sign_in("alice")
    assert (await others.get("/console/deadletters")).status_code == 403
    browser = await ConsoleBrowser(home).sign_in("admin")
    assert "Drop" in (await browser.get("/console/deadletters")).text
    assert (await browser.post("/console/deadletters/dl_hostile", {"act": "drop"})).headers["location"].endswith("letter-dropped")
    assert (await browser.post("/console/deadletters/dl_hostile", {"act": "drop"})).status_code == 404
    assert (await browser.post("/console/deadletters/dl_two", {"act": "retry"})).status_code == 303
    assert (await Reception(home).ask("GET", "/api/deadletters")).json()["items"] == []
    refused = await Reception(home).ask("DELETE", "/api/deadletters/dl_two", "alice")
    assert (refused.status_code, refused.json()["reason_id"]) == (403, "user-lacks-permission")


def session_row(user: str) -> dict[str, Any]:
    texts = dict.fromkeys(("thumbprint", "kek_id", "wrapped", "body", "provider"), "")
    moments = {"created": 1_700_000_000_000_000, "renewed": 1_700_000_000_000_000, "until": 4_000_000_000_000_000, "ended": 0}
    named = {"tenant": "default", "id": f"si_{user}", "owner": f"default|interlock-development|{user}", "roles": "[]"}
    return {**texts, **moments, **named, "client_id": "c", "client_name": HOSTILE[:100], "resource": "https://x/mcp", "scope": "tool:*"}


async def test_a_person_ends_an_own_session_and_no_other_one(home: House) -> None:
    with home.gateway.database.engine.begin() as connection:
        connection.execute(insert(sign_in_sessions), [session_row("alice"), session_row("bob")])
    browser = await ConsoleBrowser(home).sign_in("alice")
    shown = (await browser.get("/console/account")).text
    assert "si_alice" in shown and "si_bob" not in shown and "<script>alert" not in shown
    assert (await browser.post("/console/account", {"act": "end", "id": "si_bob"})).status_code == 404
    assert (await browser.post("/console/account", {"act": "end", "id": "si_alice"})).headers["location"].endswith("session-ended")
    assert "si_alice" not in (await browser.get("/console/account")).text
    assert (await browser.post("/console/account", {"act": "disconnect", "id": "k_none"})).status_code == 404
