"""Several processes on one database: each finishes what another began, and none lets a code or a token count twice."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.house import House, two
from tests.fakes.openid_provider import SECRET, OpenIdProvider, openid_provider
from tests.fakes.sign_in import Browser, Client, device_tokens, is_admitted, link_in, parameters_of

pytestmark = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenIdProvider]:
    monkeypatch.setenv("PROVIDER_SECRET", SECRET)
    async with openid_provider() as started:
        yield started


@pytest.fixture
async def pair(tmp_path: Path, database_url: str, provider: OpenIdProvider) -> AsyncIterator[tuple[House, House]]:
    async with two(tmp_path / "home", database_url, **provider.settings()) as homes:
        yield homes


async def code_across(one: House, other: House, provider: OpenIdProvider, client: Client) -> str:
    """A code: registered and asked for at one process, consented at the other, back from the provider at the first again."""
    assert (await client.register()).status_code == 201
    client.home = other
    browser = Browser(one)
    page = await client.authorize(browser)
    browser.reach(other, browser.http.cookies)
    away = await browser.consent(page, login="provider corp")
    browser.reach(one, browser.http.cookies)
    done = await browser.http.get("/oauth/callback/corp", params=provider.log_in(link_in(away)))
    return parameters_of(link_in(done))["code"]


async def test_each_process_finishes_what_another_began(pair: tuple[House, House], provider: OpenIdProvider) -> None:
    one, other = pair
    client = Client(one)
    code = await code_across(one, other, provider, client)
    given = (await client.redeem(code)).json()
    assert await is_admitted(one, given["access_token"], "/mcp") and await is_admitted(other, given["access_token"], "/mcp")
    client.home = one
    renewed = await client.refresh(given["refresh_token"])
    assert renewed.status_code == 200, renewed.text
    assert (
        await one.http.post("/oauth/revoke", data={"client_id": client.id, "token": renewed.json()["refresh_token"]})
    ).status_code == 200
    await other.gateway.database.refresh_epochs()
    assert not await is_admitted(other, given["access_token"], "/mcp"), "a session that one process ended is over in the other"


async def test_a_code_replayed_at_another_process_ends_the_session(pair: tuple[House, House], provider: OpenIdProvider) -> None:
    """attack OAU-01"""
    one, other = pair
    client = Client(one)
    code = await code_across(one, other, provider, client)
    given = (await client.redeem(code)).json()
    client.home = one
    assert (await client.redeem(code)).json()["error"] == "invalid_grant"
    await other.gateway.database.refresh_epochs()
    assert not await is_admitted(one, given["access_token"], "/mcp") and not await is_admitted(other, given["access_token"], "/mcp")
    assert (await client.refresh(given["refresh_token"])).json()["error"] == "invalid_grant"


async def test_a_refresh_token_used_at_two_processes_at_once_lasts_in_none(pair: tuple[House, House], provider: OpenIdProvider) -> None:
    """attack OAU-04"""
    one, other = pair
    client = Client(one)
    given = (await client.redeem(await code_across(one, other, provider, client))).json()
    thief = Client(one, client.id)
    answers = await asyncio.gather(client.refresh(given["refresh_token"]), thief.refresh(given["refresh_token"]))
    for home in pair:
        await home.gateway.database.refresh_epochs()
    assert sorted(answer.status_code for answer in answers)[-1] == 400
    for answer in answers:
        if answer.status_code == 200:
            assert not await is_admitted(one, answer.json()["access_token"], "/mcp")
            assert not await is_admitted(other, answer.json()["access_token"], "/mcp")


async def test_a_consent_counts_at_one_process_only(pair: tuple[House, House], provider: OpenIdProvider) -> None:
    """attack OAU-02"""
    one, other = pair
    client, browser = Client(one), Browser(one)
    await client.register()
    page = await client.authorize(browser)
    assert (await browser.consent(page, login="provider corp")).status_code == 200
    browser.reach(other, browser.http.cookies)
    assert (await browser.consent(page, login="provider corp")).status_code == 400


async def test_a_command_waits_at_one_process_for_an_approval_at_another(tmp_path: Path, database_url: str) -> None:
    async with two(tmp_path / "home", database_url) as (one, other):
        given = await device_tokens(one, "alice", through=other)
        assert await is_admitted(one, given["access_token"]) and await is_admitted(other, given["access_token"])
