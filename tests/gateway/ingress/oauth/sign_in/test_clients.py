"""The requests of clients that people use, replayed: how each discovers the gateway, becomes known, and gets its tokens."""

import time
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from adapters.upstream.http1.responses import HttpResponse
from gateway.ingress.oauth.sign_in.clients.store import GRANTS
from tests.fakes.house import URL, House
from tests.fakes.issuer import FakeIssuer, RsaKey
from tests.fakes.recorded_clients import CHATGPT, CHATGPT_KEYS, DOCUMENTS, RECORDINGS, REGISTRATIONS, Recording
from tests.fakes.sign_in import Browser, Client, device_tokens, is_admitted, link_in, parameters_of

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CHATGPT_ISSUER = FakeIssuer(CHATGPT, f"{URL}/oauth/token", time.time)
CHATGPT_ISSUER.key = RsaKey("cimd-20260428030119")


@pytest.fixture
def home(home: House, monkeypatch: pytest.MonkeyPatch) -> House:
    """A gateway to which the clients' documents are near."""

    async def fetch(place: str, *, limit: int, timeout: float) -> HttpResponse:  # noqa: ASYNC109 - the port's shape
        body = CHATGPT_ISSUER.jwks().body if place == CHATGPT_KEYS else msgspec.json.encode(DOCUMENTS[place])
        return HttpResponse(200, {}, body)

    monkeypatch.setattr(home.gateway.egress, "fetch", fetch)
    return home


async def discovered(home: House, recording: Recording) -> Mapping[str, Any]:
    """The metadata of the authorization server, found as the client finds it from the URL of the MCP server alone."""
    challenge = (await home.http.post("/mcp", json={})).headers["www-authenticate"]
    assert f'resource_metadata="{URL}{recording.discovery[0]}"' in challenge
    documents = {}
    for path in recording.discovery:
        answer = await home.http.get(path)
        assert answer.status_code == (404 if path in recording.missing else 200), path
        documents[path] = answer.json()
    resource, server = documents[recording.discovery[0]], documents["/.well-known/oauth-authorization-server"]
    assert (resource["resource"], resource["authorization_servers"][0], server["issuer"]) == (f"{URL}/mcp", URL, URL)
    assert server["code_challenge_methods_supported"] == ["S256"] and "none" in server["token_endpoint_auth_methods_supported"]
    return dict(server)


async def client_of(home: House, recording: Recording, server: Mapping[str, Any]) -> Client:
    """The client, known by its document or by a registration."""
    if recording.document:
        assert server["client_id_metadata_document_supported"] is True
        return Client(home, recording.document, recording.redirect)
    asked = {"client_name": recording.name, **REGISTRATIONS[recording.name]}
    answer = await home.http.post(server["registration_endpoint"], json=asked)
    assert answer.status_code == 201, answer.text
    registered = answer.json()
    assert registered["redirect_uris"] == asked["redirect_uris"]
    assert (registered["token_endpoint_auth_method"], "client_secret" in registered) == ("none", False)
    return Client(home, registered["client_id"], recording.redirect)


def proof_of(client: Client) -> dict[str, str]:
    """What the client shows at the token endpoint beside its code: an assertion by its key, if its document names one."""
    if client.id != CHATGPT:
        return {}
    claims = {"sub": CHATGPT, "exp": int(time.time()) + 300}
    return {"client_assertion_type": ASSERTION, "client_assertion": CHATGPT_ISSUER.mint({"typ": "JWT"}, **claims)}


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/revoke"])
async def test_no_document_is_fetched_for_a_token_that_the_client_does_not_hold(  # attack OAU-03
    home: House, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """These endpoints have no rate without a credential: anybody could have the gateway flood other hosts, and wait for slow ones."""
    fetched: list[str] = []

    async def fetch(place: str, *, limit: int, timeout: float) -> HttpResponse:  # noqa: ASYNC109 - the port's shape
        fetched.append(place)
        return HttpResponse(404, {}, b"")

    other = Client(home)
    await other.register()
    held = await device_tokens(home, "admin")
    codes = (await other.code(), held["refresh_token"], held["access_token"], "ic_unknown")
    monkeypatch.setattr(home.gateway.egress, "fetch", fetch)
    for number, token in enumerate(codes):
        forms = [{"token": token}]
        if path == "/oauth/token":
            forms = [
                {"grant_type": grant, name: token} for grant, name in zip(GRANTS, ("code", "refresh_token", "device_code"), strict=True)
            ]
        for form in forms:
            answer = await home.http.post(path, data={"client_id": f"https://victim{number}.test/client", **form})
            assert answer.status_code == 200 if path == "/oauth/revoke" else answer.json()["error"] == "invalid_grant"
    assert fetched == []


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda each: f"{each.name} {'document' if each.document else 'registers'}")
async def test_a_recorded_client_signs_a_person_in(home: House, recording: Recording) -> None:
    client, browser = await client_of(home, recording, await discovered(home, recording)), Browser(home)
    asked = {"scope": "agent:* tool:* offline_access", "state": recording.state, **recording.more}
    page = await client.authorize(browser, **asked)
    assert page.status_code == 200 and recording.name in page.text, page.text
    if recording.document:
        assert f"<dt>Described by</dt><dd>{recording.document.split('/')[2]}</dd>" in page.text
    address = link_in(await browser.consent(page))
    answer = parameters_of(address)
    assert address.startswith(recording.redirect) and (answer["state"], answer["iss"]) == (recording.state, URL)
    redeemed = await client.redeem(answer["code"], resource=f"{URL}/mcp", **proof_of(client))
    assert redeemed.status_code == 200, redeemed.text
    given = redeemed.json()
    assert given["scope"] == "agent:* tool:*" and await is_admitted(home, given["access_token"], "/mcp")
    assert not await is_admitted(home, given["access_token"], "/api/whoami")
    renewed = await client.refresh(given["refresh_token"], resource=f"{URL}/mcp", **proof_of(client))
    assert renewed.status_code == 200, renewed.text


async def test_a_client_whose_document_names_a_key_has_to_prove_it(home: House) -> None:  # attack OAU-03
    recording = next(each for each in RECORDINGS if each.document == CHATGPT)
    client = Client(home, CHATGPT, recording.redirect)
    stranger = FakeIssuer(CHATGPT, f"{URL}/oauth/token", time.time)
    stranger.key = RsaKey(CHATGPT_ISSUER.key.kid)
    forged = {"client_assertion_type": ASSERTION, "client_assertion": stranger.mint({"typ": "JWT"}, sub=CHATGPT)}
    used = proof_of(client)
    assert (await client.redeem(await client.code(), **used)).status_code == 200
    for wrong in ({}, forged, used):
        assert (await client.redeem(await client.code(), **wrong)).json()["error"] == "invalid_client"


async def test_a_client_of_the_first_revision_finds_the_metadata_at_the_origin(home: House) -> None:
    """Revision 2025-03-26 has no metadata of resources: clients ask the origin of the MCP server."""
    server = (await home.http.get("/.well-known/oauth-authorization-server")).json()
    assert server["registration_endpoint"] == f"{URL}/oauth/register" and server["token_endpoint"] == f"{URL}/oauth/token"
