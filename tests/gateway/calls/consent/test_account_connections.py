"""Claims about the consents that people are asked for: one page each, for one person, in whichever process."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from sqlalchemy import select

from adapters.oauth.authorized import Consent
from adapters.oauth.discovery import AuthorizationServer
from gateway.calls.consent.account_connections import (
    CONSENTED_SECONDS,
    PAGE_SECONDS,
    PER_OWNER_MAX,
    AccountConnections,
    UnknownConnection,
    cookie_name,
)
from gateway.storage.database import Database
from gateway.storage.tables import connections as table
from policies.vault.credentials import ClientRegistration, CredentialKey
from policies.vault.envelope import EnvelopeEncryption
from policies.vault.wrapping_keys import VaultKeys


class Now:
    def __init__(self) -> None:
        self.now = 1_000_000_000

    def __call__(self) -> int:
        return self.now


def consent(owner: str = "acme|idp|alice", **more: Any) -> Consent:
    key = CredentialKey("acme", owner, "https://as", more.get("resource", "https://crm/mcp"))
    at = AuthorizationServer("https://as", "https://as/t")
    client = ClientRegistration("https://as", more.get("client", "us"), "client_secret_basic", "hush-client")
    redirect = more.get("redirect", "https://gw/connect/callback")
    return Consent(key, "crm", at, client, frozenset(more.get("scopes", ())), redirect)


class Open(Protocol):
    def __call__(self, database: Database, url: str = "https://gw") -> AccountConnections: ...


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def opened(tmp_path: Path, now: Now) -> Open:
    envelope = EnvelopeEncryption(VaultKeys.open(tmp_path))
    return lambda database, url="https://gw": AccountConnections(database, envelope, url, now, lambda batch, record: None)


@pytest.fixture
def connections(opened: Open, database: Database) -> AccountConnections:
    return opened(database)


# attack VLT-02
async def test_the_same_consent_is_asked_for_on_the_same_page_while_it_is_good(connections: AccountConnections, now: Now) -> None:
    first = await connections.request_consent(consent(scopes=["a", "b"]))
    assert (await connections.request_consent(consent(scopes=["b", "a"]))).id == first.id
    others = [consent("acme|idp|bob"), consent(scopes=["a"]), consent(client="other"), consent(redirect="https://evil/callback")]
    pages = {(await connections.request_consent(other)).id for other in others}
    assert len(pages | {first.id}) == 5
    now.now += int(PAGE_SECONDS * 1e6)
    assert (await connections.request_consent(consent(scopes=["a", "b"]))).id != first.id
    with pytest.raises(UnknownConnection):
        await connections.find(first.id)


# attack VLT-01, VLT-03
async def test_only_the_browser_that_was_admitted_last_comes_back_and_once(connections: AccountConnections) -> None:
    asked = await connections.find((await connections.request_consent(consent())).id)
    with pytest.raises(UnknownConnection):
        await connections.consume_callback(asked.state, {cookie_name(asked, True): ""})  # nobody was admitted
    first, second = await connections.bind_browser(asked), await connections.bind_browser(asked)
    bare = cookie_name(asked, False)  # a page of a sibling domain can set it
    assert cookie_name(asked, True) == f"__Host-{bare}"
    for cookies in (
        {},
        {cookie_name(asked, True): first},
        {"interlock-connect": second},
        {bare: second},
        {bare: second, "__Host-x": second},
    ):
        with pytest.raises(UnknownConnection):
            await connections.consume_callback(asked.state, cookies)
    with pytest.raises(UnknownConnection):
        await connections.consume_callback("", {cookie_name(asked, True): second})
    back = await connections.consume_callback(asked.state, {cookie_name(asked, True): second})
    assert (back.id, back.consent, back.verifier) == (asked.id, consent(), asked.verifier)
    for again in (connections.consume_callback(asked.state, {cookie_name(asked, True): second}), connections.find(asked.id)):
        with pytest.raises(UnknownConnection):
            await again


# attack VLT-02
async def test_a_cookie_of_one_page_opens_no_other(connections: AccountConnections) -> None:
    mine = await connections.find((await connections.request_consent(consent())).id)
    other = await connections.find((await connections.request_consent(consent(redirect="https://evil/callback"))).id)
    cookie = await connections.bind_browser(mine)
    await connections.bind_browser(other)
    for name in (cookie_name(mine, True), cookie_name(other, True)):
        with pytest.raises(UnknownConnection):
            await connections.consume_callback(other.state, {name: cookie})


# attack VLT-01
async def test_without_https_the_cookie_has_no_prefix_and_one_with_it_counts_for_nothing(opened: Open, database: Database) -> None:
    plain = opened(database, "http://127.0.0.1:8080")
    asked = await plain.find((await plain.request_consent(consent())).id)
    cookie = await plain.bind_browser(asked)
    with pytest.raises(UnknownConnection):
        await plain.consume_callback(asked.state, {cookie_name(asked, True): cookie})
    assert (await plain.consume_callback(asked.state, {cookie_name(asked, False): cookie})).id == asked.id


async def test_nobodys_pages_push_out_somebody_elses(connections: AccountConnections, now: Now) -> None:
    bobs = await connections.request_consent(consent("acme|idp|bob"))
    pages = []
    for number in range(PER_OWNER_MAX + 1):
        now.now += 1
        pages.append(await connections.request_consent(consent(resource=f"https://crm/{number}")))
    assert await connections.find(bobs.id)
    assert await connections.find(pages[-1].id)
    with pytest.raises(UnknownConnection):
        await connections.find(pages[0].id)


async def test_secrets_of_a_page_show_neither_in_words_nor_in_rows(connections: AccountConnections, database: Database) -> None:
    asked = await connections.find((await connections.request_consent(consent())).id)
    cookie = await connections.bind_browser(asked)
    row = await database.read(lambda connection: connection.execute(select(table)).first())
    for secret in (asked.state, asked.verifier, cookie, "hush-client"):
        assert secret not in repr(asked)
        assert secret not in repr(row)


async def test_a_sweep_leaves_what_is_good(connections: AccountConnections, now: Now) -> None:
    first = await connections.request_consent(consent())
    now.now += int(PAGE_SECONDS * 2e6) + 1
    second = await connections.request_consent(replace(consent(), server="erp"))
    await connections.sweep()
    assert await connections.find(second.id)
    with pytest.raises(UnknownConnection):
        await connections.find(first.id)


async def test_what_was_given_is_kept_for_tasks_that_nobody_took_up_yet(
    connections: AccountConnections, now: Now, database: Database
) -> None:
    asked = await connections.find((await connections.request_consent(consent())).id)
    cookie = await connections.bind_browser(asked)
    await connections.record_consent(await connections.consume_callback(asked.state, {cookie_name(asked, True): cookie}))

    async def swept(seconds: float) -> bool:
        now.now += int(seconds * 1e6)
        await connections.sweep()
        return await database.read(lambda connection: connection.execute(select(table.c.given)).scalar()) is None

    assert not await swept(PAGE_SECONDS * 3)
    assert await swept(CONSENTED_SECONDS)
