"""The audit over /api: its search by person, and the verification of its newest records."""

from typing import Any

import pytest

from gateway.audit import decisions
from gateway.ingress.admin.authority import audit
from policies.audit import proof
from tests.fakes.house import CallbackAgent, House
from tests.fakes.reception import Reception

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PATH = "/api/audit/verification"


async def verified(home: House) -> dict[str, Any]:
    await home.gateway.periodic_tasks.sign_and_log_head()
    answer = await Reception(home).ask("GET", PATH)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def tamper(home: House) -> None:
    await home.gateway.database.write(
        lambda batch: batch.run("UPDATE audit SET body = replace(body, 'allowed', 'refused') WHERE seq = 2", ())
    )


async def test_an_untouched_audit_is_sound_and_an_edited_one_names_the_record(home: House) -> None:
    await Reception(home).ask("GET", "/api/audit")
    sound = await verified(home)
    assert (sound["sound"], sound["complete"], sound["flaws"], sound["chains"]) == (True, True, [], 1)
    await tamper(home)
    edited = await verified(home)
    assert not edited["sound"] and edited["flaw_count"] >= 1
    assert (edited["flaws"][0]["seq"], edited["flaws"][0]["problem"]) == (2, "its content does not match its hash")


async def test_only_the_newest_records_are_verified_where_there_are_many(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        await Reception(home).ask("GET", "/api/audit")
    monkeypatch.setattr(proof, "NEWEST_OF_CHAIN_MAX", 3)
    newest = await verified(home)
    assert (newest["sound"], newest["complete"], newest["records"]) == (True, False, 3)
    await tamper(home)
    assert (await verified(home))["sound"], "an old record is looked at by the command alone"


@on_sqlite
async def test_only_readers_of_the_audit_verify_it(home: House) -> None:
    refused = await Reception(home).ask("GET", PATH, "alice")
    assert refused.status_code == 403 and refused.json()["decision"]["missing"]
    assert audit.VERIFY_AUDIT.verb in (await Reception(home).ask("GET", "/api/audit")).text


async def test_the_audit_is_searched_by_person(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await home.agent(CallbackAgent("echo"))
    for user in ("alice", "bob", "alice"):
        await home.send(home.token(user), "echo", "hello")
    monkeypatch.setattr(decisions, "SEARCHED_AT_ONCE", 2)
    for person in ("alice", "default|interlock-development|alice"):
        found = (await Reception(home).ask("GET", f"/api/audit?kind=decision&person={person}")).json()
        assert [each["principal"]["subject"] for each in found["items"]] == ["alice", "alice"]
    assert (await Reception(home).ask("GET", "/api/audit?person=ali")).json() == {"items": [], "next": None}


@on_sqlite
async def test_a_search_by_person_goes_on_where_it_stopped(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await home.agent(CallbackAgent("echo"))
    for user in ("alice", *["bob"] * 6, "alice"):
        await home.send(home.token(user), "echo", "hello")
    monkeypatch.setattr(decisions, "SEARCHED_AT_ONCE", 2)
    monkeypatch.setattr(decisions, "SEARCHED_MAX", 4)
    cursor, count, pages = "", 0, 0
    while cursor is not None:
        page = (await Reception(home).ask("GET", f"/api/audit?kind=decision&person=alice&limit=1&cursor={cursor}")).json()
        count, pages, cursor = count + len(page["items"]), pages + 1, page["next"]
    assert count == 2 and pages > 2
