"""People log in at their identity provider: they stay who they are there, and no answer of another provider or browser counts."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from policies.ids import now_us
from tests.fakes.house import House, house, open_house
from tests.fakes.issuer import ABSENT, Answer, EcKey
from tests.fakes.openid_provider import SECRET, OpenIdProvider, openid_provider
from tests.fakes.real_provider import real_provider
from tests.fakes.sign_in import Browser, Client, is_admitted, link_in, parameters_of

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
HOUR_US = 3_600_000_000


@pytest.fixture
async def provider(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[OpenIdProvider]:
    monkeypatch.setenv("PROVIDER_SECRET", SECRET)
    async with openid_provider() as started:
        yield started


@pytest.fixture
async def corp(tmp_path: Path, database_url: str, provider: OpenIdProvider) -> AsyncIterator[House]:
    settings = provider.settings()
    settings["sign_in"]["providers"]["other"] = {**settings["sign_in"]["providers"]["corp"], "label": "Another login"}
    async with house(tmp_path / "home", database_url, **settings) as built:
        yield built


async def begun(home: House, client: Client, browser: Browser, name: str = "corp") -> str:
    """The authorization URL at the provider, after the person's consent."""
    if not client.id:
        await client.register()
    page = await browser.consent(await client.authorize(browser), login=f"provider {name}")
    assert page.status_code == 200, page.text
    return link_in(page)


async def returned(browser: Browser, answer: dict[str, str], name: str = "corp") -> httpx.Response:
    return await browser.http.get(f"/oauth/callback/{name}", params=answer)


async def signed_in(home: House, provider: OpenIdProvider, client: Client) -> dict[str, Any]:
    browser = Browser(home)
    page = await returned(browser, provider.log_in(await begun(home, client, browser)))
    answer = await client.redeem(parameters_of(link_in(page))["code"])
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def roles_of(home: House, token: str) -> tuple[str, ...]:
    return (await home.gateway.rulings.caller_resolver.authenticate(token, {f"{home.url}/mcp"})).principal.roles


async def test_a_person_of_a_provider_is_the_same_with_either_token(corp: House, provider: OpenIdProvider) -> None:
    given = await signed_in(corp, provider, Client(corp))
    audiences = {corp.url, f"{corp.url}/mcp"}
    authenticate = corp.gateway.rulings.caller_resolver.authenticate
    signed = await authenticate(given["access_token"], audiences)
    direct = await authenticate(provider.issuer.mint(aud=corp.url, tid="acme", roles=["sales"]), audiences)
    assert signed.principal == direct.principal
    assert signed.principal.owner_key == f"acme|{provider.url}|alice" and signed.principal.roles == ("sales",)


async def test_no_answer_of_another_provider_or_browser_counts(corp: House, provider: OpenIdProvider) -> None:  # attack OAU-02
    client, browser, thief = Client(corp), Browser(corp), Browser(corp)
    for change, name in (
        ({"iss": "https://evil.test"}, "corp"),
        ({"iss": ABSENT}, "corp"),
        ({"state": "guessed"}, "corp"),
        ({}, "other"),
    ):
        answer = provider.log_in(await begun(corp, client, browser)) | change
        page = await returned(browser, {key: value for key, value in answer.items() if value is not ABSENT}, name)
        assert "code" not in parameters_of(page.text.split('href="')[-1]) and "ic_" not in page.text, (change, name)
    answer = provider.log_in(await begun(corp, client, browser))
    await client.authorize(thief)
    assert (await returned(thief, answer)).status_code == 400
    assert provider.requests == [], "no code left the gateway"
    assert "ic_" in (await returned(browser, answer)).text
    assert (await returned(browser, answer)).status_code == 400, "a state counts once"


async def test_an_id_token_has_to_be_for_this_login(corp: House, provider: OpenIdProvider) -> None:  # attack OAU-02
    client, browser, key = Client(corp), Browser(corp), provider.issuer.key
    wrong: list[dict[str, Any]] = [
        *({"nonce": "another"}, {"nonce": ABSENT}, {"aud": "another"}, {"aud": ["gateway", "other"]}, {"azp": "other"}),
        *({"iss": "https://evil.test"}, {"iat": 1, "exp": 2}, {"tid": ABSENT}, {"sub": ""}, {"sub": ABSENT}),
    ]
    for provider.overrides in [*wrong, {}]:
        if not provider.overrides:
            provider.issuer.key = EcKey(key.kid)
        page = await returned(browser, provider.log_in(await begun(corp, client, browser)))
        assert parameters_of(link_in(page))["error"] == "access_denied", provider.overrides


async def test_each_refresh_has_the_roles_of_today(corp: House, provider: OpenIdProvider) -> None:  # attack OAU-04
    client = Client(corp)
    given = await signed_in(corp, provider, client)
    provider.claims["roles"] = ["support"]
    renewed = (await client.refresh(given["refresh_token"])).json()
    assert await roles_of(corp, renewed["access_token"]) == ("support",)
    provider.claims["sub"] = "mallory"
    assert (await client.refresh(renewed["refresh_token"])).json()["error"] == "invalid_grant"
    assert not await is_admitted(corp, renewed["access_token"], "/mcp"), "a provider that answers with another person ends the session"


async def test_a_person_whom_the_provider_refuses_is_signed_out(corp: House, provider: OpenIdProvider) -> None:  # attack OAU-04
    client = Client(corp)
    given = await signed_in(corp, provider, client)
    provider.refuses = "invalid_grant"
    assert (await client.refresh(given["refresh_token"])).json()["error"] == "invalid_grant"
    assert not await is_admitted(corp, given["access_token"], "/mcp")


async def test_while_the_provider_is_away_no_session_is_lost(corp: House, provider: OpenIdProvider) -> None:
    client = Client(corp)
    given = await signed_in(corp, provider, client)
    provider.is_down = True
    away = await client.refresh(given["refresh_token"])
    assert (away.status_code, away.json()["error"]) == (503, "temporarily_unavailable")
    provider.is_down = False
    assert (await client.refresh(given["refresh_token"])).status_code == 200


async def test_a_login_at_a_provider_that_is_down_ends_with_a_clear_error(corp: House, provider: OpenIdProvider) -> None:
    client, browser = Client(corp), Browser(corp)
    await client.register()
    provider.metadata = {"token_endpoint": "nonsense"}
    told = parameters_of(link_in(await browser.consent(await client.authorize(browser), login="provider corp")))
    assert (told["error"], told["iss"]) == ("temporarily_unavailable", corp.url) and "try again later" in told["error_description"]
    provider.metadata = {}
    answer = provider.log_in(await begun(corp, client, browser))
    provider.is_down = True
    told = parameters_of(link_in(await returned(browser, answer)))
    assert (told["error"], told["iss"]) == ("access_denied", corp.url) and "code" not in told
    provider.is_down = False
    assert (await returned(browser, answer)).status_code == 400, "a login that failed is not done twice"
    assert (await signed_in(corp, provider, client))["token_type"] == "Bearer"


async def test_a_provider_may_change_its_keys_at_any_moment(corp: House, provider: OpenIdProvider) -> None:
    client = Client(corp)
    given = await signed_in(corp, provider, client)
    provider.issuer.key = EcKey("k2")
    renewed = await client.refresh(given["refresh_token"])
    assert renewed.status_code == 200, "the new key is fetched at once"
    provider.issuer.key = EcKey("k3")
    assert (await signed_in(corp, provider, Client(corp)))["token_type"] == "Bearer"


async def test_while_the_keys_of_the_provider_are_away_no_session_is_lost(corp: House, provider: OpenIdProvider) -> None:
    client = Client(corp)
    given = await signed_in(corp, provider, client)
    provider.issuer.key, provider.issuer.answer = EcKey("k2"), Answer(503, b"")
    away = await client.refresh(given["refresh_token"])
    assert (away.status_code, away.json()["error"]) == (503, "temporarily_unavailable")
    provider.issuer.answer = None
    assert (await client.refresh(given["refresh_token"])).status_code == 200, "the provider's next refresh token was kept"


async def test_a_session_that_can_not_be_renewed_ends_after_eight_hours(
    corp: House, provider: OpenIdProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(corp)
    provider.gives_refresh_tokens = False
    given = await signed_in(corp, provider, client)
    sessions = corp.gateway.sign_in_sessions
    monkeypatch.setattr(sessions, "_now", lambda: now_us() + 7 * HOUR_US)
    again = await client.refresh(given["refresh_token"])
    assert again.status_code == 200
    monkeypatch.setattr(sessions, "_now", lambda: now_us() + 8 * HOUR_US)
    assert (await client.refresh(again.json()["refresh_token"])).json()["error"] == "invalid_grant"


async def test_people_log_in_at_a_real_provider(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDER_SECRET", "of the tests")
    with real_provider("http://interlock.test") as real:
        issuer = {"issuer": real.issuer, "jwks_url": f"{real.issuer}/jwks", "tenant_claim": "tid"}
        there = {"issuer": real.issuer, "client_id": "gateway", "client_secret": "env:PROVIDER_SECRET", "prompt": "consent"}
        settings: dict[str, Any] = {"identity": {"development": "off", "issuers": [issuer]}, "sign_in": {"providers": {"corp": there}}}
        async with open_house(tmp_path / "home", database_url, egress={"allow": ["127.0.0.0/8"]}, **settings) as home:
            client, browser = Client(home), Browser(home)
            url = await begun(home, client, browser)
            back = await real.log_in(url, "bob", f"{home.url}/oauth/callback/corp")
            page = await browser.http.get(back)
            given = (await client.redeem(parameters_of(link_in(page))["code"])).json()
            assert await roles_of(home, given["access_token"]) == ("operator",)
            renewed = (await client.refresh(given["refresh_token"])).json()
            caller = await home.gateway.rulings.caller_resolver.authenticate(renewed["access_token"], {f"{home.url}/mcp"})
            assert caller.principal.owner_key == f"acme|{real.issuer}|bob"
            await real.rotate()
            back = await real.log_in(await begun(home, client, browser), "alice", f"{home.url}/oauth/callback/corp")
            again = parameters_of(link_in(await browser.http.get(back)))
            assert "code" in again, "the provider signs with a key that the gateway has not seen"
