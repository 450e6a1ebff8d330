"""Claims about tokens that nobody is asked for at the server: by exchange, by assertion, by the person's identity provider."""

from collections.abc import AsyncIterator

import pytest

from adapters.contract import ConsentNeeded, UpstreamFault
from adapters.oauth.assertions import identity_key, read_claims
from policies.vault.credentials import ClientRegistration, Credential
from tests.fakes.authorization_server import AuthorizationServer, authorization_server
from tests.fakes.oauth_bench import Bench, grant_of

ALICE = grant_of().delegation.principal


@pytest.fixture
async def provider() -> AsyncIterator[AuthorizationServer]:
    async with authorization_server() as server:
        server.clients["gw-at-idp"] = ("client_secret_basic", "idp-hush")
        server.ways.scopes = ["openid"]
        yield server


def by_provider(bench: Bench, provider: AuthorizationServer) -> None:
    bench.issuer.trusts.append(provider)
    bench.issuer.clients["gw-at-vendor"] = ("client_secret_basic", "vendor-hush")
    bench.auth = {
        "grant": "id-jag",
        "issuer": bench.issuer.issuer,
        "client_id": "gw-at-vendor",
        "client_secret": "vendor-hush",
        "provider": {"issuer": provider.issuer, "client_id": "gw-at-idp", "client_secret": "idp-hush"},
    }


async def test_one_connection_with_the_provider_opens_what_trusts_it(bench: Bench, provider: AuthorizationServer) -> None:
    by_provider(bench, provider)
    assert await bench.connected() == "read"
    consent = bench.asked.consents[-1]
    assert (consent.openid, consent.at.issuer, sorted(consent.scopes)) == (True, provider.issuer, ["offline_access", "openid"])
    assert "resource" not in provider.last("authorize")
    exchange = next(given for name, given in provider.asked if given.get("requested_token_type", "").endswith(":id-jag"))
    assert (exchange["audience"], exchange["resource"]) == (bench.issuer.issuer, f"{bench.server.origin}/mcp")
    assert exchange["subject_token_type"] == "urn:ietf:params:oauth:token-type:id_token"
    assert bench.issuer.about[0]["sub"] == "alice"
    assert bench.issuer.count("authorize") == 0  # nobody was asked there
    for token in bench.issuer.tokens.values():
        token.good = False
    assert await bench.does() == "read"  # another one, without anybody
    assert len(bench.asked.consents) == 1


async def test_who_is_not_connected_is_asked_and_nobody_else_is_used(bench: Bench, provider: AuthorizationServer) -> None:
    by_provider(bench, provider)
    await bench.connected()
    with pytest.raises(ConsentNeeded):
        await bench.does(user="bob")
    assert [given["sub"] for given in bench.issuer.about] == ["alice"]


async def test_an_identity_that_ended_is_renewed_and_one_that_can_not_be_is_asked_for(bench: Bench, provider: AuthorizationServer) -> None:
    by_provider(bench, provider)
    await bench.connected()
    bench.now += 4000
    provider.now = lambda: bench.now
    for token in bench.issuer.tokens.values():
        token.good = False
    assert await bench.does() == "read"
    assert [given["grant_type"] for name, given in provider.asked if name == "token"].count("refresh_token") == 1
    bench.now += 4000
    provider.refreshing.clear()
    for token in bench.issuer.tokens.values():
        token.good = False
    with pytest.raises(ConsentNeeded):
        await bench.does()


async def test_an_identity_that_the_provider_revoked_is_renewed_once(bench: Bench, provider: AuthorizationServer) -> None:
    by_provider(bench, provider)
    await bench.connected()
    for token in bench.issuer.tokens.values():
        token.good = False
    provider.identities.clear()
    provider.refreshing.clear()
    with pytest.raises(ConsentNeeded):
        await bench.does()


# attack VLT-01
@pytest.mark.parametrize(
    ("claim", "value"), [("iss", "https://evil.example"), ("aud", "another"), ("nonce", "another"), ("exp", 1), ("sub", "bob")]
)
async def test_an_answer_about_somebody_else_is_no_identity(
    bench: Bench, provider: AuthorizationServer, claim: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_provider(bench, provider)
    bench.people = provider.issuer  # alice is the provider's
    with pytest.raises(ConsentNeeded):
        await bench.does()
    monkeypatch.setattr("tests.fakes.authorization_server.claimed", lambda claims: {**claims, claim: value})
    with pytest.raises(UpstreamFault):
        await bench.consent()
    with pytest.raises(ConsentNeeded):
        await bench.does()


async def test_the_gateways_word_on_a_person_is_for_that_issuer_alone(bench: Bench) -> None:
    bench.issuer.trusted = bench.keys.jwks()
    bench.issuer.clients["us"] = ("none", "")
    for grant in ("exchange", "jwt-bearer"):
        bench.auth = {"grant": grant, "issuer": bench.issuer.issuer, "client_id": "us"}
        assert await bench.does() == "read"
        said = bench.issuer.about[-1]
        assert (said["iss"], said["sub"], said["aud"]) == ("https://gw.test", "alice", bench.issuer.issuer)
        assert (said["sub_iss"], said["tenant"], said["resource"]) == ("https://idp", "acme", f"{bench.server.origin}/mcp")
        assert said["exp"] - said["iat"] <= 60
        for key, _ in await bench.vault.find(grant_of(), bench.server.origin, True):
            await bench.vault.delete(key)


# attack DLG-11
async def test_where_an_exchange_is_refused_nothing_else_is_tried(bench: Bench) -> None:
    bench.issuer.clients["us"] = ("none", "")
    bench.auth = {"grant": "exchange", "issuer": bench.issuer.issuer, "client_id": "us"}
    with pytest.raises(UpstreamFault, match="refused the request"):
        await bench.does()
    assert [given.get("grant_type") for name, given in bench.issuer.asked if name == "token"] == [
        "urn:ietf:params:oauth:grant-type:token-exchange"
    ]
    assert bench.asked.consents == []


async def test_the_platforms_word_on_the_gateway_is_used_for_its_own_account(bench: Bench) -> None:
    bench.issuer.trusted = bench.keys.jwks()
    bench.issuer.clients["us"] = ("none", "")
    now = int(bench.now)
    word = bench.keys.sign({"sub": "workload", "aud": bench.issuer.issuer, "iat": now, "exp": now + 60}, "JWT")
    account = {"account": "service", "issuer": bench.issuer.issuer, "client_id": "us"}
    bench.auth = {**account, "grant": "jwt-bearer", "assertion": word}
    assert await bench.does() == "read"
    assert bench.issuer.about[-1]["sub"] == "workload"


# attack VLT-05
@pytest.mark.parametrize("path", ["", "/mcp"])
async def test_a_connection_with_a_provider_opens_no_server_at_its_address(bench: Bench, path: str) -> None:
    key = identity_key(ALICE, ClientRegistration(f"{bench.server.origin}{path}", "us"))
    await bench.vault.write(key, Credential("the-providers-own", "us", id_token="a.b.c"))
    with pytest.raises(ConsentNeeded):
        await bench.does()
    assert bench.server.shown == [""]
    assert await bench.vault.read(grant_of(), key) is not None


async def test_connections_as_two_clients_of_one_provider_are_two() -> None:
    assert identity_key(ALICE, ClientRegistration("https://idp", "us")) != identity_key(ALICE, ClientRegistration("https://idp", "we"))


async def test_what_is_no_token_has_no_claims(bench: Bench) -> None:
    for text in ("", "a", "a.b.c", "a.W10.c", "a.%.c"):
        assert read_claims(text) == {}
    key = identity_key(ALICE, ClientRegistration("https://idp", "us"))
    await bench.vault.write(key, Credential("x", "us", id_token="a.b.c"))
    assert key.owner == ALICE.owner_key
