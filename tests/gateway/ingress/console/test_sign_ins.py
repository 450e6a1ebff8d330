"""Sessions of the console that belong to a sign-in at the gateway: they last as long as it does, with the roles of now."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from gateway.ingress.console.sign_in.tables import console_sessions
from gateway.ingress.oauth.sign_in.tables import sign_in_sessions
from tests.fakes.console import PEOPLE, ConsoleBrowser
from tests.fakes.house import ROLES, House, house
from tests.fakes.openid_provider import SECRET, OpenIdProvider, openid_provider
from tests.fakes.sign_in import Client, device_tokens, link_in, parameters_of, request_in

HOUR_US = 3_600_000_000
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
COOKIE = "__Host-interlock-console"


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenIdProvider]:
    monkeypatch.setenv("PROVIDER_SECRET", SECRET)
    async with openid_provider() as started:
        started.claims["roles"] = ["operator"]
        yield started


@pytest.fixture
async def corp(tmp_path: Path, database_url: str, provider: OpenIdProvider) -> AsyncIterator[House]:
    settings: dict[str, Any] = {**provider.settings(), "roles": ROLES, "users": PEOPLE}
    async with house(tmp_path / "home", database_url, server={"public_url": "https://interlock.test"}, **settings) as built:
        yield built


@asynccontextmanager
async def development_house(folder: Path, database_url: str, **sign_in: Any) -> AsyncIterator[House]:
    """A gateway that is reached over https, whose development users may sign in."""
    settings: dict[str, Any] = {"users": PEOPLE, "roles": ROLES, "sign_in": sign_in}
    async with house(folder / "home", database_url, server={"public_url": "https://interlock.test"}, **settings) as built:
        yield built


async def pass_time(home: House, microseconds: int = HOUR_US) -> None:
    """The provider vouched for everybody's roles longer ago."""
    statement = "UPDATE sign_in_sessions SET renewed = renewed - ?"
    await home.gateway.database.write(lambda batch: batch.run(statement, (microseconds,)))


async def rows(home: House, table: Any) -> list[Any]:
    return list(await home.gateway.database.read(lambda connection: connection.execute(select(table)).all()))


async def opened_by_login(home: House, **form: str) -> tuple[ConsoleBrowser, dict[str, Any]]:
    """A browser that followed the link of `interlock console` after `interlock login`, and the tokens of the login."""
    tokens, browser = await device_tokens(home, "admin", **form), ConsoleBrowser(home)
    answer = await home.http.post("/api/console/links", headers={"authorization": f"Bearer {tokens['access_token']}"})
    link = {"link": parameters_of(answer.json()["url"])["link"]}
    assert (await browser.post("/console/sign-in", link, csrf=None)).status_code == 303
    return browser, tokens


async def signed_in_at(home: House, provider: OpenIdProvider, browser: ConsoleBrowser | None = None) -> ConsoleBrowser:
    """A browser whose person signed in at the provider, by the button of the console."""
    browser = browser or ConsoleBrowser(home)
    page = await browser.get("/console/sign-in?to=/console/tasks")
    form = {"request": request_in(page), "login": "provider corp"}
    away = await browser.http.post("/oauth/consent", data=form, headers={"origin": home.url})
    done = await browser.http.get("/oauth/callback/corp", params=provider.log_in(link_in(away)))
    assert link_in(done) == "/console/tasks", done.text
    return browser


async def test_a_console_opened_after_a_login_outlives_the_logins_token(tmp_path: Path, database_url: str) -> None:
    async with development_house(tmp_path, database_url, token_life=60) as home:
        browser, tokens = await opened_by_login(home)
        (row,) = await rows(home, console_sessions)
        assert row.until - row.created == 8 * HOUR_US
        assert (await browser.get("/console/audit")).status_code == 200
        form = {"token": tokens["refresh_token"], "client_id": "interlock-cli"}
        assert (await home.http.post("/oauth/revoke", data=form)).status_code == 200
        assert (await browser.get("/console")).status_code == 401, "interlock logout ends the console too"


@on_sqlite
async def test_a_console_has_the_scope_of_the_login_and_ends_with_it(tmp_path: Path, database_url: str) -> None:
    async with development_house(tmp_path, database_url) as home:
        browser, tokens = await opened_by_login(home, scope="agent:*")
        refused = await browser.get("/console/audit")
        assert refused.status_code == 403 and "audit:read" in refused.text
        headers = {"authorization": f"Bearer {tokens['access_token']}"}
        (session,) = (await home.http.get("/api/sessions", headers=headers)).json()["items"]
        assert (await home.http.delete(f"/api/sessions/{session['id']}", headers=headers)).status_code == 200
        assert (await browser.get("/console")).status_code == 401


@on_sqlite
async def test_a_form_counts_once_for_as_long_as_its_session_lasts(tmp_path: Path, database_url: str) -> None:
    async with development_house(tmp_path, database_url, token_life=60) as home:
        server = await home.server("inventory", "check")
        browser, _ = await opened_by_login(home)
        path, form = "/console/servers/inventory/try", {"once": "o" * 22, "tool": "check", "json": "{}"}
        await browser.get(path)
        assert (await browser.post(path, form)).status_code == 200
        statement = "UPDATE spent SET not_after = not_after - ?"  # seven hours later, in a session of eight
        await home.gateway.database.write(lambda batch: batch.run(statement, (7 * HOUR_US,)))
        again = await browser.post(path, form)
        assert again.status_code == 403 and "sent already" in again.text
        assert len(server.calls) == 1


@on_sqlite
async def test_signing_out_of_the_console_leaves_the_login_alone(tmp_path: Path, database_url: str) -> None:
    async with development_house(tmp_path, database_url) as home:
        browser, tokens = await opened_by_login(home)
        await browser.get("/console")
        assert (await browser.post("/console/sign-out", {})).status_code == 200
        assert (await browser.get("/console")).status_code == 401
        assert (await Client(home, "interlock-cli").refresh(tokens["refresh_token"])).status_code == 200


@on_sqlite
async def test_a_person_signs_in_to_the_console_at_their_provider(corp: House, provider: OpenIdProvider) -> None:
    entrance = await ConsoleBrowser(corp).get("/console/tasks")
    assert entrance.status_code == 401 and 'href="/console/sign-in?to=%2Fconsole%2Ftasks"' in entrance.text
    browser = await signed_in_at(corp, provider)
    (cookie,) = [each for each in browser.http.cookies.jar if each.name == COOKIE]
    assert cookie.secure and cookie.has_nonstandard_attr("HttpOnly") and cookie.get_nonstandard_attr("SameSite") == "Strict"
    assert "alice" in (await browser.get("/console/tasks")).text
    (row,) = await rows(corp, sign_in_sessions)
    assert (row.client_id, row.until - row.created) == ("interlock-browser", 8 * HOUR_US)
    await browser.post("/console/sign-out", {})
    (row,) = await rows(corp, sign_in_sessions)
    assert row.ended > 0, "the sign-in was this browser's alone"


@on_sqlite
async def test_signing_in_again_ends_the_former_sign_in_of_the_browser(corp: House, provider: OpenIdProvider) -> None:
    """attack ADM-04"""
    browser = await signed_in_at(corp, provider)
    await signed_in_at(corp, provider, browser)
    assert sorted(row.ended > 0 for row in await rows(corp, sign_in_sessions)) == [False, True]
    assert (await browser.get("/console")).status_code == 200


@on_sqlite
async def test_opening_a_link_ends_the_former_sign_in_of_the_browser(tmp_path: Path, database_url: str) -> None:
    """attack ADM-04"""
    async with development_house(tmp_path, database_url) as home:
        browser = ConsoleBrowser(home)
        form = {"request": request_in(await browser.get("/console/sign-in")), "login": "development", "user": "alice"}
        await browser.http.post("/oauth/consent", data=form, headers={"origin": home.url})
        assert "alice" in (await browser.get("/console")).text
        headers = {"authorization": f"Bearer {(await device_tokens(home, 'admin'))['access_token']}"}
        made = (await home.http.post("/api/console/links", headers=headers)).json()
        await browser.post("/console/sign-in", {"link": parameters_of(made["url"])["link"]}, csrf=None)
        assert "admin" in (await browser.get("/console")).text
        ended = {row.client_id: row.ended > 0 for row in await rows(home, sign_in_sessions)}
        assert ended == {"interlock-browser": True, "interlock-cli": False}


@on_sqlite
async def test_no_form_writes_another_header(corp: House, provider: OpenIdProvider) -> None:  # attack ADM-04
    browser = await signed_in_at(corp, provider)
    await browser.get("/console/why")
    answer = await browser.post("/console/why", {"id": "d_1\r\nset-cookie: a=b"})
    assert answer.status_code == 303 and "set-cookie" not in answer.headers
    assert answer.headers["location"].split("?")[0] == "/console/why/d_1%0D%0Aset-cookie:%20a=b"


@on_sqlite
async def test_the_way_back_from_a_sign_in_is_a_page_of_the_console(corp: House, provider: OpenIdProvider) -> None:
    browser = ConsoleBrowser(corp)
    for to in ("https://evil.example", "//evil.example", "/oauth/authorize", "/console/../api"):
        page = await browser.get(f"/console/sign-in?to={to}")
        form = {"request": request_in(page), "login": "provider corp"}
        away = await browser.http.post("/oauth/consent", data=form, headers={"origin": corp.url})
        answer = provider.log_in(link_in(away))
        done = await browser.http.get("/oauth/callback/corp", params=answer)
        assert link_in(done) == "/console", to


@on_sqlite
async def test_a_console_has_the_roles_that_the_provider_vouches_for_now(corp: House, provider: OpenIdProvider) -> None:
    browser = await signed_in_at(corp, provider)
    assert (await browser.get("/console/audit")).status_code == 200
    provider.claims["roles"] = ["member"]
    asked = len(provider.requests)
    assert (await browser.get("/console/audit")).status_code == 200, "for as long as a token would have the former roles"
    assert len(provider.requests) == asked
    await pass_time(corp)
    assert (await browser.get("/console/audit")).status_code == 403
    (row,) = await rows(corp, sign_in_sessions)
    assert row.until - row.created == 8 * HOUR_US, "renewed roles do not make the session of a browser longer"
    provider.refuses = "invalid_grant"
    await pass_time(corp)
    assert (await browser.get("/console")).status_code == 401
    (row,) = await rows(corp, sign_in_sessions)
    assert row.ended > 0


@on_sqlite
async def test_a_console_waits_for_a_provider_that_is_down(corp: House, provider: OpenIdProvider) -> None:
    browser = await signed_in_at(corp, provider)
    await pass_time(corp)
    provider.is_down = True
    away = await browser.get("/console")
    assert away.status_code == 503 and "identity provider" in away.text
    provider.is_down = False
    assert (await browser.get("/console")).status_code == 200, "nothing was lost"


async def test_pages_at_once_use_each_refresh_token_of_the_provider_once(corp: House, provider: OpenIdProvider) -> None:
    browser = await signed_in_at(corp, provider)
    for _ in range(3):
        await pass_time(corp)
        answers = await asyncio.gather(*(browser.http.get("/console") for _ in range(6)))
        assert [answer.status_code for answer in answers] == [200] * 6
    renewals = [request["refresh_token"] for request in provider.requests if request["grant_type"] == "refresh_token"]
    assert len(renewals) == len(set(renewals)) == 3


async def test_a_session_ends_when_the_settings_name_its_issuer_no_more(tmp_path: Path, database_url: str) -> None:
    async with development_house(tmp_path, database_url) as home:
        browser, _ = await opened_by_login(home)
        assert (await browser.get("/console")).status_code == 200
        await home.gateway.database.write(
            lambda batch: batch.run("UPDATE console_sessions SET issuer = ?, sign_in = ''", ("https://gone.example",))
        )
        assert (await browser.get("/console")).status_code == 401


async def test_the_sign_in_of_the_console_is_limited_by_address(tmp_path: Path, database_url: str) -> None:
    async with development_house(tmp_path, database_url) as home:
        answers = [(await home.http.get("/console/sign-in")).status_code for _ in range(40)]
        assert (answers[0], answers[-1]) == (200, 429)
