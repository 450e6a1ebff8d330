"""Claims about servers that want OAuth: how a credential is got, from whom, whose it is, and what is refused."""

import json

import pytest

from adapters.contract import ConsentNeeded, UpstreamFault
from policies.vault.credentials import CredentialKey, WrongOwner
from tests.fakes.authorization_server import OPENID, RESOURCE, SERVER, Ways, authorization_server
from tests.fakes.oauth_bench import Bench, grant_of

INBOUND = "Bearer what-the-client-showed-us"


async def test_a_call_without_consent_names_the_page_and_goes_on_after_it(bench: Bench) -> None:
    bench.server.needs[""] = "crm"
    with pytest.raises(ConsentNeeded) as needed:
        await bench.does()
    assert needed.value.url == "https://gw.test/connect/1"
    assert sorted(bench.asked.consents[0].scopes) == ["crm"]
    await bench.consent()
    assert await bench.does() == "read"
    assert "https://gw.test/connect/callback" in bench.issuer.last("register")["redirect_uris"]


async def test_the_resource_stands_in_both_requests_and_pkce_is_s256(bench: Bench) -> None:  # attack VLT-03
    await bench.connected()
    resource = f"{bench.server.origin}/mcp"
    assert bench.issuer.last("authorize")["resource"] == bench.issuer.last("token")["resource"] == resource
    assert bench.issuer.last("authorize")["code_challenge_method"] == "S256"


@pytest.mark.parametrize("ways", [Ways(pkce=None), Ways(pkce=["plain"])])
async def test_no_consent_without_s256(bench: Bench) -> None:  # attack VLT-03
    with pytest.raises(UpstreamFault, match="does not support a secure consent"):
        await bench.does()


@pytest.mark.parametrize(
    "ways",
    [
        Ways(),
        Ways(place=OPENID),
        Ways(path="/tenant1"),
        Ways(path="/tenant1", place=f"{OPENID}/tenant1"),
        Ways(path="/tenant1", place=f"/tenant1{OPENID}"),
    ],
    ids=["rfc8414", "oidc", "rfc8414-path", "oidc-inserted", "oidc-appended"],
)
@pytest.mark.parametrize(("place", "told"), [(f"{RESOURCE}/mcp", True), (f"{RESOURCE}/mcp", False), (RESOURCE, False), ("/odd.json", True)])
async def test_metadata_is_found_at_every_place(bench: Bench, place: str, told: bool) -> None:
    bench.server.place, bench.server.told = place, told
    assert await bench.connected() == "read"


@pytest.mark.parametrize("ways", [Ways(path="/tenant1", place=SERVER)])
async def test_an_issuer_with_a_path_is_not_looked_for_at_the_root(bench: Bench) -> None:
    with pytest.raises(UpstreamFault, match="can't be used"):
        await bench.does()


@pytest.mark.parametrize("ways", [Ways(issuer="https://attacker.example")])
async def test_metadata_of_another_issuer_is_not_used(bench: Bench) -> None:
    with pytest.raises(UpstreamFault) as fault:
        await bench.does()
    assert fault.value.detail == "the metadata is of another issuer"
    assert bench.issuer.count("register") == 0


# attack VLT-05
@pytest.mark.parametrize(
    "resource", ["https://evil.example/mcp", "{origin}/mcp/deeper", "{origin}/mc", "{origin}/mcp?x=1", "javascript:alert(1)"]
)
async def test_metadata_of_another_resource_is_not_used(bench: Bench, resource: str) -> None:
    bench.server.names["resource"] = resource.format(origin=bench.server.origin)
    with pytest.raises(UpstreamFault, match="of another resource"):
        await bench.does()
    assert bench.issuer.count("metadata") == 0


@pytest.mark.parametrize("iss", ["wrong", "slash", "none"])
@pytest.mark.parametrize("tells", [True, False])
async def test_iss_is_compared_byte_for_byte(bench: Bench, iss: str, tells: bool) -> None:
    bench.issuer.ways.iss, bench.issuer.ways.tells_iss = iss, tells
    with pytest.raises(ConsentNeeded):
        await bench.does()
    if iss == "none" and not tells:
        await bench.consent()
        assert await bench.does() == "read"
        return
    with pytest.raises(UpstreamFault, match="another authorization server"):
        await bench.consent()
    assert bench.issuer.count("token") == 0  # the code never left


async def test_an_error_that_comes_back_is_no_consent(bench: Bench) -> None:
    with pytest.raises(ConsentNeeded):
        await bench.does()
    with pytest.raises(UpstreamFault):
        await bench.consent(error="access_denied")
    assert bench.issuer.count("token") == 0


@pytest.mark.parametrize("method", ["none", "client_secret_basic", "client_secret_post"])
async def test_the_gateway_registers_itself_as_the_server_wants_it(bench: Bench, method: str) -> None:
    bench.issuer.ways.methods = [method]
    assert await bench.connected() == "read"
    assert bench.issuer.last("register")["token_endpoint_auth_method"] == method
    assert bench.issuer.count("register") == 1


async def test_one_registration_serves_everybody_of_a_tenant(bench: Bench) -> None:
    await bench.connected(user="alice")
    await bench.connected(user="bob")
    assert bench.issuer.count("register") == 1


@pytest.mark.parametrize("method", ["none", "private_key_jwt"])
async def test_the_address_of_a_document_is_preferred_to_a_registration(bench: Bench, method: str) -> None:
    bench.issuer.ways.methods = [method]
    keyed = method == "private_key_jwt"
    document = bench.own.metadata(keyed) | ({"jwks": bench.keys.jwks()} if keyed else {})
    bench.issuer.ways.documents = {document["client_id"]: document}
    assert await bench.connected() == "read"
    assert bench.issuer.count("register") == 0
    assert bench.issuer.last("token")["client_id"] == document["client_id"]


async def test_what_the_operator_registered_is_used_at_its_issuer_only(bench: Bench) -> None:
    bench.issuer.clients["ours"] = ("client_secret_basic", "s3cret&:")
    bench.auth = {"issuer": bench.issuer.issuer, "client_id": "ours", "client_secret": "s3cret&:"}
    assert await bench.connected() == "read"
    assert bench.issuer.count("register") == 0
    bench.server.names["authorization_servers"] = ["https://elsewhere.example"]
    next(iter(bench.issuer.tokens.values())).good = False
    with pytest.raises(UpstreamFault, match="another authorization server"):
        await bench.does()


async def test_credentials_of_one_issuer_are_never_shown_to_another(bench: Bench) -> None:  # attack VLT-05
    await bench.connected()
    async with authorization_server() as other:
        bench.moved_to(other)  # type: ignore[attr-defined]  # see the fixture
        assert await bench.connected() == "read"
        assert other.count("register") == 1
        assert {given.get("client_id") for path, given in other.asked if path == "token"} <= other.clients.keys()
        assert other.count("token") == 1  # the other's refresh token was not tried


async def test_nobody_gets_a_token_of_somebody_else(bench: Bench) -> None:  # attack DLG-11
    await bench.connected(user="alice")
    with pytest.raises(ConsentNeeded):
        await bench.does(user="bob")
    key = bench.asked.consents[0].key
    assert await bench.vault.read(grant_of("alice"), key) is not None
    for other in (grant_of("bob"), grant_of("alice", "evil")):
        with pytest.raises(WrongOwner):
            await bench.vault.read(other, key)


async def test_a_service_account_is_one_tenants_and_opened_by_a_grant_too(bench: Bench) -> None:
    key = CredentialKey("acme", "", "https://as", "https://crm/mcp")
    assert await bench.vault.read(grant_of("bob"), key) is None
    with pytest.raises(WrongOwner):
        await bench.vault.read(grant_of("bob", "evil"), key)


# attack DLG-08
async def test_an_inbound_token_never_goes_upstream(bench: Bench) -> None:
    await bench.connected()
    assert INBOUND not in bench.server.shown
    assert {shown.removeprefix("Bearer ") for shown in bench.server.shown} == {"", *bench.issuer.tokens}
    assert not any("what-the-client" in json.dumps(given) for _, given in bench.issuer.asked)
