"""How a browser gets in, what its session may do, and what ends it."""

import re
from typing import Any

import pytest
from sqlalchemy import select

from gateway.calls.limits.open_streams import PER_PERSON_MAX
from gateway.ingress.console import live
from gateway.ingress.console.sign_in import links, sessions
from gateway.ingress.console.sign_in.tables import console_links, console_sessions
from policies.tables import audit_records
from tests.fakes.console import ConsoleBrowser
from tests.fakes.house import CallbackAgent, House
from tests.fakes.reception import Reception

ALICE = "default|interlock-development|alice"
COOKIE = "__Host-interlock-console"
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def rows(home: House, table: Any) -> list[Any]:
    return list(await home.gateway.database.read(lambda connection: connection.execute(select(table)).all()))


async def test_a_link_makes_one_session_of_its_person_and_no_second_one(home: House) -> None:
    """attack ADM-04"""
    browser = ConsoleBrowser(home)
    link = await browser.link("alice")
    shown = await browser.get(link)
    assert (shown.status_code, "Continue as alice" in shown.text, browser.http.cookies) == (200, True, {})
    secret = link.partition("link=")[2]
    first = await browser.post("/console/sign-in", {"link": secret}, csrf=None)
    assert (first.status_code, first.headers["location"]) == (303, "/console")
    assert "alice" in (await browser.get("/console")).text
    other = ConsoleBrowser(home)
    again = await other.post("/console/sign-in", {"link": secret}, csrf=None)
    assert (again.status_code, "set-cookie" in again.headers, "spent" in again.text) == (403, False, True)
    assert secret not in str(await rows(home, console_links)) + str(await rows(home, console_sessions))
    assert browser.http.cookies[COOKIE] not in str(await rows(home, console_sessions))
    records = sorted(await rows(home, audit_records), key=lambda row: row.seq)
    acts = [row.body for row in records if row.kind == "console"]
    assert [re.findall(r'"act":"([^"]+)"', body)[0] for body in acts] == ["link-made", "signed-in"]


@on_sqlite
async def test_a_link_is_good_for_five_minutes(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "LINK_SECONDS", -1.0)
    browser = ConsoleBrowser(home)
    answer = await browser.get(await browser.link("alice"))
    assert answer.status_code == 403 and "five minutes" in answer.text


async def test_an_eleventh_link_works_and_the_oldest_says_why_it_does_not(home: House) -> None:
    browser, of_bob = ConsoleBrowser(home), await ConsoleBrowser(home).link("bob")
    made = [await browser.link("alice") for _ in range(links.PER_PERSON_MAX + 1)]
    shown = await browser.get(made[0])
    opened = await browser.post("/console/sign-in", {"link": made[0].partition("link=")[2]}, csrf=None)
    for answer in (shown, opened):
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
        assert f"gave way to {links.PER_PERSON_MAX} newer ones of yours" in answer.text and "interlock console" in answer.text
    assert [(await browser.get(link)).status_code for link in (*made[1:], of_bob)] == [200] * (links.PER_PERSON_MAX + 1)


async def test_the_oldest_of_too_many_sessions_of_a_person_ends(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "PER_PERSON_MAX", 2)
    browsers = [await ConsoleBrowser(home).sign_in(user) for user in ("bob", "alice", "alice", "alice")]
    assert [(await each.get("/console")).status_code for each in browsers] == [200, 401, 200, 200]


@on_sqlite
async def test_a_page_that_gets_no_stream_is_told_why_and_shown_all_the_same(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "STREAM_SECONDS", 0.0)  # one that is opened by mistake ends
    browser = await ConsoleBrowser(home).sign_in("alice")
    places = home.gateway.open_streams
    held = [places.acquire(ALICE) for _ in range(PER_PERSON_MAX)]
    assert 'data-live="/console/live?page=' in (await browser.get("/console/inbox")).text
    refused = await browser.get("/console/live?page=/console/inbox")
    assert (refused.status_code, refused.headers["content-type"]) == (429, "application/problem+json")
    assert (refused.json()["reason_id"], refused.json()["detail"]) == (
        "too-many-streams",
        "You have the maximum number of streams open; close some.",
    )
    assert len(held) == places.total_count


@on_sqlite
async def test_the_cookie_is_of_this_host_alone_and_out_of_reach_of_scripts(home: House) -> None:
    """attack ADM-04"""
    browser = ConsoleBrowser(home)
    secret = (await browser.link("alice")).partition("link=")[2]
    header = (await browser.post("/console/sign-in", {"link": secret}, csrf=None)).headers["set-cookie"]
    assert header.startswith(f"{COOKIE}=") and "Domain" not in header
    assert {"Path=/", "HttpOnly", "SameSite=Strict", "Secure"} <= set(header.split("; "))


@on_sqlite
async def test_a_cookie_that_was_set_before_never_becomes_a_session(home: House) -> None:
    """attack ADM-04: session fixation"""
    browser = ConsoleBrowser(home)
    browser.http.cookies.set(COOKIE, "chosen-by-the-attacker")
    await browser.sign_in("alice")
    assert browser.http.cookies.get(COOKIE, domain="interlock.test") != "chosen-by-the-attacker"
    attacker = ConsoleBrowser(home)
    attacker.http.cookies.set(COOKIE, "chosen-by-the-attacker")
    assert (await attacker.get("/console")).status_code == 401


@on_sqlite
async def test_a_session_is_known_to_admission_once_it_has_shown_a_page(home: House) -> None:
    browser = ConsoleBrowser(home)
    await browser.sign_in("alice")
    await browser.get("/console")
    owners = home.gateway.rulings.token_verifier.owners
    assert owners.find(browser.http.cookies[COOKIE]).endswith("|alice")
    other = ConsoleBrowser(home)
    other.http.cookies.set(COOKIE, "made-up")
    await other.get("/console")
    assert owners.find("made-up") == ""


@on_sqlite
async def test_signing_in_again_ends_the_former_session(home: House) -> None:
    """attack ADM-04"""
    browser = await ConsoleBrowser(home).sign_in("alice")
    former = ConsoleBrowser(home)
    former.http.cookies.set(COOKIE, browser.http.cookies[COOKIE])
    assert (await former.get("/console")).status_code == 200
    await browser.sign_in("bob")
    assert (await former.get("/console")).status_code == 401
    assert "bob" in (await browser.get("/console")).text


@on_sqlite
async def test_a_link_of_another_person_changes_nothing_before_it_is_confirmed(home: House) -> None:
    """attack ADM-04: login forgery"""
    browser = await ConsoleBrowser(home).sign_in("alice")
    link = await browser.link("bob")
    assert "Continue as bob" in (await browser.get(link)).text
    assert "alice" in (await browser.get("/console")).text
    forged = await browser.post("/console/sign-in", {"link": link.partition("link=")[2]}, csrf=None, origin="https://evil.example")
    assert forged.status_code == 403
    assert "alice" in (await browser.get("/console")).text


@on_sqlite
async def test_signing_out_ends_the_session_for_every_copy_of_its_cookie(home: House) -> None:
    """attack ADM-04"""
    browser = await ConsoleBrowser(home).sign_in("alice")
    copy = ConsoleBrowser(home)
    copy.http.cookies.set(COOKIE, browser.http.cookies[COOKIE])
    await browser.get("/console")
    answer = await browser.post("/console/sign-out", {})
    assert (answer.status_code, "Max-Age=0" in answer.headers["set-cookie"]) == (200, True)
    assert (await copy.get("/console")).status_code == 401


@on_sqlite
async def test_a_session_ends_when_it_is_idle_and_absolutely(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = await ConsoleBrowser(home).sign_in("alice")
    with monkeypatch.context() as patched:
        patched.setattr(sessions, "IDLE_SECONDS", -1.0)
        assert (await browser.get("/console")).status_code == 401
    assert (await browser.get("/console")).status_code == 200
    monkeypatch.setattr(sessions, "SESSION_SECONDS", -1.0)
    assert (await (await ConsoleBrowser(home).sign_in("alice")).get("/console")).status_code == 401


@on_sqlite
async def test_a_session_ends_with_the_token_that_asked_for_it(home: House) -> None:
    await (browser := ConsoleBrowser(home)).sign_in("alice", ttl=60)
    (row,) = await rows(home, console_sessions)
    assert row.until - row.created <= 61_000_000
    assert (await browser.get("/console")).status_code == 200


async def test_a_session_has_the_scope_of_its_token_and_the_rights_of_now(home: House) -> None:
    browser = await ConsoleBrowser(home).sign_in("admin", "agent:*")
    refused = await browser.get("/console/audit")
    assert refused.status_code == 403 and "audit:read" in refused.text
    whole = await ConsoleBrowser(home).sign_in("admin")
    assert (await whole.get("/console/audit")).status_code == 200
    killed = await Reception(home).ask("POST", "/api/kill", "carol", {"kind": "user", "name": "admin"})
    assert killed.status_code == 201, killed.text
    stopped = await whole.get("/console")
    assert stopped.status_code == 403 and "Stopped by an operator" in stopped.text


@on_sqlite
async def test_an_agent_gets_no_link_whoever_it_acts_for(home: House) -> None:
    answers: list[int] = []

    async def act(token: str, _text: str) -> str:
        for held in (token, await home.exchanged("clerk", token, "/mcp", "tool:inventory.check")):
            answer = await home.http.post("/api/console/links", headers={"authorization": f"Bearer {held}"})
            answers.append(answer.status_code)
        return "done"

    await home.server("inventory", "check")
    await home.agent(CallbackAgent("clerk", act))
    await home.send(home.token("admin"), "clerk", "hello")
    assert answers == [401, 401]
    assert (await home.http.post("/api/console/links")).status_code == 401


@on_sqlite
async def test_without_a_session_every_path_says_how_to_get_in(home: House) -> None:
    browser = ConsoleBrowser(home)
    for path in ("/console", "/console/tasks", "/console/nothing", "/console/live?page=/console"):
        answer = await browser.get(path)
        assert answer.status_code == 401, path
        assert "interlock console" in answer.text or path.startswith("/console/live")
    twin = await browser.get("/console/api/tasks")
    assert (twin.status_code, twin.content) == (401, b"")
    come = await browser.get("/console/tasks", **{"sec-fetch-site": "cross-site"})
    assert 'href="/console/tasks"' in come.text  # a link from elsewhere brings no cookie of SameSite=Strict


@on_sqlite
async def test_no_page_can_be_framed_or_stored(home: House) -> None:
    """attack ADM-04: clickjacking"""
    browser = await ConsoleBrowser(home).sign_in("alice")
    for path in ("/console", "/console/tasks", "/console/nothing", await browser.link("bob")):
        answer = await browser.get(path)
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert (answer.headers["x-frame-options"], answer.headers["cache-control"]) == ("DENY", "no-store")
        assert answer.headers["referrer-policy"] == "same-origin" and answer.headers["x-content-type-options"] == "nosniff"


async def test_people_sign_out_their_other_browsers_and_nobody_elses(home: House) -> None:
    mine, other, hers = [await ConsoleBrowser(home).sign_in(user) for user in ("alice", "alice", "bob")]
    listed = (await mine.get("/console/api/console/sessions")).json()["items"]
    of_bob = (await hers.get("/console/api/console/sessions")).json()["items"]
    assert (len(listed), len(of_bob)) == (2, 1)
    assert not any(row.digest in str([*listed, *of_bob]) for row in await rows(home, console_sessions))
    page = (await mine.get("/console/account")).text
    (ended,) = [each["id"] for each in listed if f'value="{each["id"]}"' in page]  # its own has no button
    for session_id, status in ((of_bob[0]["id"], 404), ("cs_nothing", 404), (ended, 303)):
        answer = await mine.post("/console/account", {"act": "sign-out", "id": session_id})
        assert answer.status_code == status, session_id
    assert [(await each.get("/console")).status_code for each in (mine, other, hers)] == [200, 401, 200]
