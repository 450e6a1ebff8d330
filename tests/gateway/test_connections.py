"""Claims about the consents that people are asked for, without a gateway."""

import asyncio
from typing import Any

import pytest

from adapters.mcp_oauth import Consent
from adapters.oauth_discovery import AuthorizationServer
from gateway.connections import LIFE_SECONDS, PER_OWNER, Connections, UnknownConnection, cookie_name
from policies.credentials import Client, CredentialKey


class Now:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def consent(owner: str = "acme|idp|alice", **more: Any) -> Consent:
    key = CredentialKey("acme", owner, "https://as", more.get("resource", "https://crm/mcp"))
    return Consent(
        key, "crm", AuthorizationServer("https://as", "https://as/t"), Client("https://as", "us"), frozenset(more.get("scopes", ()))
    )


async def test_the_same_consent_is_asked_for_on_the_same_page_while_it_is_good() -> None:
    now = Now()
    connections = Connections("https://gw", now)
    first = connections.ask(consent())
    assert connections.ask(consent()).id == first.id
    assert connections.ask(consent("acme|idp|bob")).id != first.id
    assert connections.ask(consent(scopes=["wider"])).id != first.id
    now.now += LIFE_SECONDS
    assert connections.ask(consent()).id != first.id
    with pytest.raises(UnknownConnection):
        connections.find(first.id)


async def test_only_the_browser_that_was_admitted_last_comes_back_and_once() -> None:
    connections = Connections("https://gw", Now())
    asked = connections.find(connections.ask(consent()).id)
    with pytest.raises(UnknownConnection):
        connections.returned(asked.state, {cookie_name(asked): ""})  # nobody was admitted
    first, second = connections.admit(asked), connections.admit(asked)
    for cookies in ({}, {cookie_name(asked): first}, {"interlock-connect": second}):
        with pytest.raises(UnknownConnection):
            connections.returned(asked.state, cookies)
    assert connections.returned(asked.state, {f"__Host-{cookie_name(asked)}": second}) is asked
    with pytest.raises(UnknownConnection):
        connections.returned(asked.state, {cookie_name(asked): second})


async def test_nobodys_pages_push_out_somebody_elses() -> None:
    connections = Connections("https://gw", Now())
    bobs = connections.ask(consent("acme|idp|bob"))
    pages = [connections.ask(consent(resource=f"https://crm/{number}")) for number in range(PER_OWNER + 1)]
    assert connections.find(bobs.id)
    assert connections.find(pages[-1].id)
    with pytest.raises(UnknownConnection):
        connections.find(pages[0].id)


async def test_whoever_waits_hears_of_a_consent_before_and_after_it_was_given() -> None:
    connections = Connections("https://gw", Now())
    asked = connections.find(connections.ask(consent()).id)
    waiting = asyncio.create_task(connections.wait(asked.id, 5))
    await asyncio.sleep(0)
    cookie = connections.admit(asked)
    connections.given(connections.returned(asked.state, {cookie_name(asked): cookie}))
    assert await waiting
    assert await connections.wait(asked.id, 5)
    assert not await connections.wait("another", 0.01)


async def test_secrets_of_a_page_do_not_show() -> None:
    connections = Connections("https://gw", Now())
    asked = connections.find(connections.ask(consent()).id)
    cookie = connections.admit(asked)
    assert not any(secret in repr(asked) for secret in (asked.state, asked.verifier, cookie, asked.browser))
