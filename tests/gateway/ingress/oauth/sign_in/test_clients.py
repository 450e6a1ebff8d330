"""The requests of clients that people use: what each sends to register, where it wants the answer, and what it asks for."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from adapters.upstream.http1 import HttpResponse
from tests.fakes.house import URL, House
from tests.fakes.sign_in import Browser, Client, is_admitted, link_in, parameters_of

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
CLAUDE_CODE = "https://claude.ai/oauth/claude-code-client-metadata"
VS_CODE = "https://vscode.dev/oauth/client-metadata.json"
DOCUMENTS: Mapping[str, Mapping[str, Any]] = {  # as each publishes it, apart from members that no authorization server reads
    CLAUDE_CODE: {
        "client_id": CLAUDE_CODE,
        "client_name": "Claude Code",
        "client_uri": "https://claude.ai",
        "redirect_uris": ["http://localhost/callback", "http://127.0.0.1/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    },
    VS_CODE: {
        "client_id": VS_CODE,
        "client_name": "Visual Studio Code",
        "redirect_uris": [
            "http://127.0.0.1:33418/",
            "http://127.0.0.1/",
            "https://vscode.dev/redirect",
            "https://insiders.vscode.dev/redirect",
        ],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    },
}
REGISTRATIONS: Mapping[str, Mapping[str, Any]] = {
    "Visual Studio Code": {
        "client_uri": "https://code.visualstudio.com",
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "response_types": ["code"],
        "redirect_uris": [
            "https://insiders.vscode.dev/redirect",
            "https://vscode.dev/redirect",
            "http://127.0.0.1/",
            "http://127.0.0.1:33418/",
        ],
        "scope": "agent:* tool:*",
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    },
    "Cursor": {
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "redirect_uris": [
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "https://www.cursor.com/agents/mcp/oauth/callback",
            "http://localhost:8787/callback",
        ],
        "token_endpoint_auth_method": "none",
    },
    "ChatGPT": {
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "redirect_uris": ["https://chatgpt.com/connector_platform_oauth_redirect", "https://chatgpt.com/connector/oauth/OUbdUMlL15Ct"],
        "token_endpoint_auth_method": "client_secret_post",
    },
    "Claude": {"redirect_uris": ["https://claude.ai/api/mcp/auth_callback"]},
}
REDIRECTS = {
    "Visual Studio Code": ("http://127.0.0.1:59656/", "https://vscode.dev/redirect"),
    "Cursor": ("cursor://anysphere.cursor-mcp/oauth/callback", "http://localhost:8787/callback"),
    "ChatGPT": ("https://chatgpt.com/connector/oauth/OUbdUMlL15Ct",),
    "Claude": ("https://claude.ai/api/mcp/auth_callback",),
}


async def discovered(home: House) -> Mapping[str, Any]:
    """What a client finds from the URL of the MCP server alone: challenge, resource, authorization server (RFC 9728, RFC 8414)."""
    challenge = (await home.http.post("/mcp", json={})).headers["www-authenticate"]
    place = challenge.split('resource_metadata="')[1].split('"')[0]
    resource = (await home.http.get(place.removeprefix(URL))).json()
    issuer = resource["authorization_servers"][0]
    server = (await home.http.get("/.well-known/oauth-authorization-server")).json()
    assert (resource["resource"], server["issuer"]) == (f"{URL}/mcp", issuer)
    assert "S256" in server["code_challenge_methods_supported"]
    return dict(server)


@pytest.mark.parametrize("name", REGISTRATIONS)
async def test_clients_that_register_themselves_sign_people_in(home: House, name: str) -> None:
    server = await discovered(home)
    answer = await home.http.post(server["registration_endpoint"], json={"client_name": name, **REGISTRATIONS[name]})
    assert answer.status_code == 201, answer.text
    registered = answer.json()
    assert registered["redirect_uris"] == REGISTRATIONS[name]["redirect_uris"]
    assert (registered["token_endpoint_auth_method"], "client_secret" in registered) == ("none", False)
    for redirect in REDIRECTS[name]:
        client = Client(home, registered["client_id"], redirect)
        given = await client.tokens(scope="agent:* tool:* offline_access")
        assert await is_admitted(home, given["access_token"], "/mcp") and given["scope"] == "agent:* tool:*"
        assert (await client.refresh(given["refresh_token"], resource=f"{URL}/mcp")).status_code == 200


@pytest.mark.parametrize(("url", "redirect"), [(CLAUDE_CODE, "http://localhost:51034/callback"), (VS_CODE, "http://127.0.0.1:52163/")])
async def test_clients_with_a_metadata_document_sign_people_in(
    home: House, monkeypatch: pytest.MonkeyPatch, url: str, redirect: str
) -> None:
    async def fetch(place: str, *, limit: int, timeout: float) -> HttpResponse:  # noqa: ASYNC109 - the port's shape
        return HttpResponse(200, {}, msgspec.json.encode(DOCUMENTS[place]))

    monkeypatch.setattr(home.gateway.egress, "fetch", fetch)
    assert (await discovered(home))["client_id_metadata_document_supported"] is True
    client, browser = Client(home, url, redirect), Browser(home)
    page = await client.authorize(browser)
    host = url.split("/")[2]
    assert f"<dt>Described by</dt><dd>{host}</dd>" in page.text and str(DOCUMENTS[url]["client_name"]) in page.text
    code = parameters_of(link_in(await browser.consent(page)))["code"]
    given = (await client.redeem(code)).json()
    assert await is_admitted(home, given["access_token"], "/mcp")
    assert not await is_admitted(home, given["access_token"], "/api/whoami")
