"""Claims about credentials for servers that are there: renewed, widened, the gateway's own, and never shown."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from adapters.contract import Call, ConsentNeeded, UpstreamFault
from adapters.mcp_client.wire.messages import McpRefused, McpRequest
from adapters.oauth.authorized import credential_request_of
from adapters.openapi.document import read_api
from policies.vault.credentials import origin_of
from registry.cards.card import McpTool
from tests.fakes.authorization_server import Plain, Ways
from tests.fakes.mcp_servers import serving
from tests.fakes.oauth_bench import META, Bench, grant_of


async def test_a_token_that_ends_is_renewed_before_it_is_shown(bench: Bench) -> None:
    await bench.connected()
    bench.now += 3590
    assert await bench.does() == "read"
    assert [given["grant_type"] for path, given in bench.issuer.asked if path == "token"] == ["authorization_code", "refresh_token"]
    assert bench.issuer.last("token")["resource"] == f"{bench.server.origin}/mcp"


async def test_a_token_that_is_refused_is_renewed_once_and_rotated(bench: Bench) -> None:
    await bench.connected()
    for _ in range(3):
        for token in bench.issuer.tokens.values():
            token.good = False
        assert await bench.does() == "read"
    assert bench.issuer.count("token") == 4
    assert bench.issuer.count("authorize") == 1


async def test_a_refresh_token_is_shown_by_whom_it_was_given_to_alone(bench: Bench) -> None:
    await bench.connected()
    bench.issuer.clients["ours"] = ("client_secret_basic", "x")
    bench.auth = {"issuer": bench.issuer.issuer, "client_id": "ours", "client_secret": "x"}
    bench.now += 3590
    assert await bench.connected() == "read"
    assert "refresh_token" not in [given.get("grant_type") for _, given in bench.issuer.asked]


async def test_many_calls_at_once_renew_once(bench: Bench) -> None:
    await bench.connected()
    for token in bench.issuer.tokens.values():
        token.good = False
    assert await asyncio.gather(*(bench.does() for _ in range(10))) == ["read"] * 10
    assert bench.issuer.count("token") == 2


async def test_what_can_not_be_renewed_asks_the_person_again(bench: Bench) -> None:
    await bench.connected()
    bench.issuer.refreshing.clear()
    for token in bench.issuer.tokens.values():
        token.good = False
    assert await bench.connected() == "read"


async def test_an_authorization_server_that_is_gone_costs_nobody_their_consent(bench: Bench) -> None:
    await bench.connected()
    for token in bench.issuer.tokens.values():
        token.good = False
    bench.issuer.ways.fails = True
    with pytest.raises(UpstreamFault, match="failed"):
        await bench.does()
    bench.issuer.ways.fails = False
    assert await bench.does() == "read"
    assert bench.issuer.count("authorize") == 1


async def test_a_connected_person_is_never_nobody_to_a_server_that_serves_everybody(bench: Bench) -> None:
    await bench.connected()
    bench.now += 3000
    bench.oauth._sites.clear()
    bench.server.shown.clear()
    await bench.does()
    assert "" not in bench.server.shown


async def test_a_wider_scope_is_asked_for_with_all_that_was_there(bench: Bench) -> None:
    bench.server.needs |= {"read": "crm.read", "write": "crm.write"}
    await bench.connected("read")
    assert await bench.connected("write") == "write"
    assert set(bench.issuer.last("authorize")["scope"].split()) == {"crm.read", "crm.write"}
    assert await bench.does("read") == "read"


async def test_a_server_that_is_never_content_is_not_asked_for_ever(bench: Bench) -> None:
    bench.issuer.ways.gives = frozenset()
    bench.server.needs["read"] = "admin"
    with pytest.raises(ConsentNeeded):
        await bench.does()
    await bench.consent()
    with pytest.raises(UpstreamFault, match="that was just issued"):
        await bench.does()
    assert bench.issuer.count("authorize") == 1
    bench.now += 601
    with pytest.raises(ConsentNeeded):
        await bench.does()


async def test_a_403_that_is_not_about_scope_is_an_answer(bench: Bench) -> None:
    class Never(Plain):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async with serving(Never()) as url:
        bench.server.origin = url
        with pytest.raises(UpstreamFault, match="refused the gateway's credential"):
            await bench.does()


@pytest.mark.parametrize("ways", [Ways(scopes=["crm", "offline_access"])])
async def test_offline_access_is_asked_for_where_the_issuer_has_it(bench: Bench) -> None:
    bench.server.names["scopes_supported"] = ["crm"]
    await bench.connected()
    assert bench.issuer.last("authorize")["scope"] == "crm offline_access"


async def test_no_scope_is_made_up(bench: Bench) -> None:
    await bench.connected()
    assert "scope" not in bench.issuer.last("authorize")


@pytest.mark.parametrize("how", ["secret", "keys"])
async def test_the_gateways_own_account_by_client_credentials(bench: Bench, how: str) -> None:
    bench.server.needs[""] = "crm"
    bench.issuer.clients["ours"] = ("client_secret_basic", "x") if how == "secret" else ("private_key_jwt", bench.keys.jwks())
    proof = {"client_secret": "x"} if how == "secret" else {"method": "private_key_jwt"}
    bench.auth = {"account": "service", "issuer": bench.issuer.issuer, "client_id": "ours", **proof}
    assert await bench.does(user="alice") == "read"
    assert await bench.does(user="bob") == "read"
    assert bench.issuer.count("token") == 1
    assert bench.issuer.last("token")["scope"] == "crm"


async def test_a_service_account_is_widened_by_the_gateway_itself(bench: Bench) -> None:
    bench.server.needs |= {"read": "crm.read", "write": "crm.write"}
    bench.issuer.clients["ours"] = ("client_secret_basic", "x")
    bench.auth = {"account": "service", "issuer": bench.issuer.issuer, "client_id": "ours", "client_secret": "x"}
    assert await bench.does("read") == "read"
    assert await bench.does("write") == "write"
    assert bench.issuer.last("token")["scope"] == "crm.read crm.write"
    bench.issuer.ways.gives = frozenset()
    bench.server.needs["read"] = "more"
    with pytest.raises(UpstreamFault, match="that was just issued"):
        await bench.does("read")


async def test_listing_a_server_uses_the_callers_account_or_the_service_account(bench: Bench) -> None:
    with pytest.raises(ConsentNeeded):
        await bench.looks(credential_request_of(bench.call()))
    await bench.consent()
    probe = await bench.looks(credential_request_of(bench.call()))
    assert [tool["name"] for tool in probe.tools] == ["read", "write"]
    nobody = credential_request_of(bench.call())._replace(grant=None)
    with pytest.raises(UpstreamFault, match="this call has no person"):
        await bench.looks(nobody)
    bench.issuer.clients["ours"] = ("client_secret_basic", "x")
    bench.auth = {"account": "service", "issuer": bench.issuer.issuer, "client_id": "ours", "client_secret": "x"}
    probe = await bench.looks(credential_request_of(bench.call())._replace(grant=None))
    assert len(probe.tools) == 2


async def test_secrets_do_not_show_in_any_text(bench: Bench) -> None:
    await bench.connected()
    bench.auth = {"client_secret": "hush-hush"}
    texts = [
        repr(each)
        for each in (*bench.vault._credentials.items(), *bench.vault._clients.values(), bench.oauth._auth_options({"auth": bench.auth}))
    ]
    secrets = [*bench.issuer.tokens, *bench.issuer.refreshing, "hush-hush"]
    assert not [text for text in texts if any(secret in text for secret in secrets)]


async def test_a_server_without_terms_is_never_given_a_token(bench: Bench) -> None:
    call = bench.call()
    plain = Call(call.grant, replace(call.target, upstream={}), call.deadline, {})
    params = json.dumps({"name": "read", "arguments": {}, "_meta": META}).encode()
    with pytest.raises(UpstreamFault, match="refused the gateway's credential"):
        await bench.tools.call(plain, McpRequest(1, "read", b"{}", params, True))
    assert bench.issuer.asked == []


async def test_an_http_api_is_opened_at_the_issuer_that_the_operator_names(bench: Bench) -> None:
    bench.server.place = "/nowhere"
    bench.server.told = False
    bench.issuer.clients["ours"] = ("client_secret_basic", "x")
    bench.auth = {"account": "service", "issuer": bench.issuer.issuer, "client_id": "ours", "client_secret": "x"}
    operations = {"/items": {"get": {"operationId": "items", "responses": {}}}}
    api = read_api({"openapi": "3.1.0", "info": {"title": "shop", "version": "1"}, "paths": operations})
    call = bench.call()
    target = replace(call.target, kind="openapi", tools=tuple(McpTool(each["name"], each) for each in api.tools))
    params = json.dumps({"name": "items", "arguments": {}, "_meta": META}).encode()
    wanted = McpRequest(1, "items", b"{}", params, True)
    await bench.tools.call(Call(call.grant, target, call.deadline, {}), wanted)
    assert [shown.partition("-")[0] for shown in bench.server.shown] == ["", "Bearer at"]
    bench.oauth._sites.clear()
    nameless = replace(target, url=f"{target.url}/b", upstream={"auth": {}})
    with pytest.raises(UpstreamFault, match="names no authorization server"):
        await bench.tools.call(Call(call.grant, nameless, call.deadline, {}), wanted)


async def test_nobodys_account_is_used_to_hear_of_changes(bench: Bench) -> None:
    await bench.connected()
    bench.server.shown.clear()
    await bench.tools.watch(bench.call().target, {}, lambda: None)
    assert bench.server.shown == []
    bench.issuer.clients["ours"] = ("client_secret_basic", "x")
    bench.auth = {"account": "service", "issuer": bench.issuer.issuer, "client_id": "ours", "client_secret": "x"}
    with pytest.raises(McpRefused):  # this one tells of no changes
        await bench.tools.watch(bench.call().target, {}, lambda: None)
    assert len(bench.server.shown) == 2
    assert bench.server.shown[1].removeprefix("Bearer ") in bench.issuer.tokens


# attack VLT-05
async def test_a_refresh_token_goes_to_no_other_token_endpoint(bench: Bench) -> None:
    """Where the metadata names another one meanwhile, the person is asked again."""
    await bench.connected()
    (held,) = await bench.vault.find(grant_of(), origin_of(bench.server.origin), True)
    await bench.vault.write(held[0], replace(held[1], endpoint=f"{bench.issuer.origin}/collect", expires=bench.now))
    with pytest.raises(ConsentNeeded):
        await bench.does()
    assert all(given.get("grant_type") != "refresh_token" for _, given in bench.issuer.asked)


# attack VLT-05
@pytest.mark.parametrize("change", [{"resource": "{origin}/other"}, {"issuer": "https://other.example"}], ids=["resource", "issuer"])
async def test_a_credential_of_another_issuer_or_resource_is_not_shown(bench: Bench, change: dict[str, str]) -> None:
    bench.auth = {"issuer": bench.issuer.issuer}
    await bench.connected()
    await moved_in_the_vault(bench, change)
    bench.server.shown.clear()
    with pytest.raises(ConsentNeeded):
        await bench.does()
    assert bench.server.shown == [""]


# attack VLT-05
async def test_a_refresh_token_of_another_issuer_is_not_shown_to_this_one(bench: Bench) -> None:
    await bench.connected()
    await moved_in_the_vault(bench, {"issuer": "https://other.example"}, endpoint="", expires=bench.now)
    for token in bench.issuer.tokens.values():
        token.good = False
    with pytest.raises(ConsentNeeded):
        await bench.does()
    assert all(given.get("grant_type") != "refresh_token" for _, given in bench.issuer.asked)


async def moved_in_the_vault(bench: Bench, place: dict[str, str], **changed: Any) -> None:
    """Puts the only credential into another place, with other members."""
    ((key, held),) = await bench.vault.find(grant_of(), origin_of(bench.server.origin), True)
    await bench.vault.delete(key)
    other = {name: value.format(origin=bench.server.origin) for name, value in place.items()}
    await bench.vault.write(key._replace(**other), replace(held, **changed))


# attack VLT-02
@pytest.mark.parametrize(("member", "value"), [("client_id", "another"), ("redirect", "https://evil.example/callback")])
async def test_a_consent_for_another_client_or_address_is_none(bench: Bench, member: str, value: str) -> None:
    bench.issuer.clients["us"] = ("none", "")
    bench.auth = {"issuer": bench.issuer.issuer, "client_id": "us"}
    await bench.connected()
    (held,) = await bench.vault.find(grant_of(), origin_of(bench.server.origin), True)
    await bench.vault.write(held[0], replace(held[1], **{member: value}))
    bench.server.shown.clear()
    with pytest.raises(ConsentNeeded):
        await bench.does()
    assert bench.server.shown == [""]


# attack DLG-11
async def test_without_a_personal_credential_not_even_the_shared_one_is_sent(bench: Bench) -> None:
    bench.shared = {"x-gateway": "shared-secret"}
    with pytest.raises(ConsentNeeded):
        await bench.does()
    assert bench.server.shown == []
    await bench.consent()
    assert await bench.does() == "read"
    for key, _ in await bench.vault.find(grant_of(), origin_of(bench.server.origin), True):
        await bench.vault.delete(key)
    bench.server.shown.clear()
    with pytest.raises(ConsentNeeded):
        await bench.does()
    assert bench.server.shown == []
