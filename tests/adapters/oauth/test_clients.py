"""Registrations of the gateway that an authorization server forgot, and credentials that are given back."""

import pytest

from adapters.contract import ConsentNeeded, UpstreamFault
from adapters.oauth.authorized import credential_request_of
from adapters.oauth.clients import GOOD_SECONDS
from adapters.oauth.grants import consent_url
from policies.vault.credentials import Credential, CredentialKey
from tests.fakes.authorization_server import visited
from tests.fakes.oauth_bench import Bench


def forget(bench: Bench) -> None:
    """The authorization server loses its registrations and all that it gave."""
    bench.issuer.clients.clear()
    bench.issuer.refreshing.clear()
    for token in bench.issuer.tokens.values():
        token.good = False


async def held(bench: Bench) -> tuple[CredentialKey, Credential]:
    ((key, credential),) = await bench.vault.find(bench.call().grant, f"{bench.server.origin}", True)
    return key, credential


async def test_a_forgotten_registration_is_made_anew_before_a_person_is_sent_there(bench: Bench) -> None:
    await bench.connected()
    forget(bench)
    bench.now += GOOD_SECONDS + 1
    assert await bench.connected(user="bob") == "read"  # who has nothing there that could be refused
    assert bench.issuer.count("register") == 2


async def test_a_registration_that_was_good_a_moment_ago_is_not_asked_about(bench: Bench) -> None:
    await bench.connected()
    for token in bench.issuer.tokens.values():
        token.good = False
    bench.issuer.refreshing.clear()
    before = bench.issuer.count("token")
    assert await bench.connected() == "read"
    grants = [given["grant_type"] for path, given in bench.issuer.asked[-20:] if path == "token"]
    assert bench.issuer.count("token") == before + 2 and grants[-2:] == ["refresh_token", "authorization_code"]


async def test_a_registration_that_is_refused_when_a_person_comes_back_is_forgotten(bench: Bench) -> None:
    with pytest.raises(ConsentNeeded):
        await bench.does()
    consent = bench.asked.consents[-1]
    answer = await visited(consent_url(consent.at, bench.own, consent.client.client_id, consent.authorization_params("s", "v" * 43)))
    forget(bench)  # between the consent and the exchange of its code
    with pytest.raises(UpstreamFault):
        await bench.oauth.complete_consent(consent, "v" * 43, answer)
    assert await bench.connected() == "read"
    assert bench.issuer.count("register") == 2


async def test_an_operator_has_the_gateway_register_anew(bench: Bench) -> None:
    await bench.connected()
    await bench.oauth.delete_registration(credential_request_of(bench.call()))
    for token in bench.issuer.tokens.values():
        token.good = False
    assert await bench.connected() == "read"
    assert bench.issuer.count("register") == 2


async def test_a_credential_that_is_given_up_is_revoked_where_it_was_given(bench: Bench) -> None:
    bench.issuer.ways.revokes = True
    await bench.connected()
    key, credential = await held(bench)
    assert await bench.oauth.revoke(key, credential, [bench.upstream])
    client = credential.client_id
    expected = [(client, "refresh_token", credential.refresh_token), (client, "access_token", credential.access_token)]
    assert bench.issuer.revoked == expected


async def test_tokens_go_nowhere_but_whence_they_came(bench: Bench) -> None:
    bench.issuer.ways.revokes = True
    bench.issuer.ways.more = {"revocation_endpoint": "https://evil.example/revoke"}
    await bench.connected()
    key, credential = await held(bench)
    assert not await bench.oauth.revoke(key, credential, [bench.upstream])
    bench.issuer.ways.more = {}
    moved = Credential(credential.access_token, credential.client_id, endpoint="https://elsewhere.example/token")
    assert not await bench.oauth.revoke(key, moved, [bench.upstream]) and bench.issuer.revoked == []


async def test_an_authorization_server_without_revocation_is_told_nothing(bench: Bench) -> None:
    await bench.connected()
    assert not await bench.oauth.revoke(*await held(bench), [bench.upstream])
