"""What clients may learn before they have a token."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from gateway.ingress.oauth import metadata
from policies.keys.jwks import vet_key_set
from policies.keys.signing import SigningKeys
from policies.keys.strict_jwt import read_unverified, verify_signature

GW = "https://gw.test"


@pytest.fixture
def keys(tmp_path: Path) -> SigningKeys:
    return SigningKeys.open(tmp_path)


@pytest.fixture
async def http(keys: SigningKeys) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(metadata.routes(GW, keys, ["https://idp.test"], ["crm.read"]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=GW) as client:
        yield client


async def test_our_tokens_verify_with_the_published_keys(http: httpx.AsyncClient, keys: SigningKeys) -> None:
    token = keys.sign({"a": 1}, "at+jwt")
    keys.rotate()
    answer = await http.get("/.well-known/jwks.json")
    assert answer.headers["content-type"] == "application/jwk-set+json"
    unverified = read_unverified(token)
    verify_signature(unverified, vet_key_set(answer.json())[unverified.kid])
    assert all("d" not in key for key in answer.json()["keys"])


async def test_the_authorization_server_offers_tokens_for_tokens_and_assertions_alone(http: httpx.AsyncClient) -> None:
    document = (await http.get("/.well-known/oauth-authorization-server")).json()
    assert document["issuer"] == GW
    assert document["token_endpoint"] == f"{GW}/oauth/token"
    assert document["jwks_uri"] == f"{GW}/.well-known/jwks.json"
    assert [name.rpartition(":")[2] for name in document["grant_types_supported"]] == ["token-exchange", "jwt-bearer"]
    assert document["dpop_signing_alg_values_supported"] == ["ES256", "RS256"]
    assert document["token_endpoint_auth_methods_supported"] == ["client_secret_basic", "private_key_jwt"]
    assert "authorization_endpoint" not in document


async def test_revocation_accepts_the_same_client_authentication_as_the_token_endpoint(http: httpx.AsyncClient) -> None:
    document = (await http.get("/.well-known/oauth-authorization-server")).json()
    assert document["revocation_endpoint"] == f"{GW}/oauth/revoke"
    for told in ("auth_methods_supported", "auth_signing_alg_values_supported"):
        assert document[f"revocation_endpoint_{told}"] == document[f"token_endpoint_{told}"]
    assert document["token_endpoint_auth_signing_alg_values_supported"] == ["ES256", "RS256"]


@pytest.mark.parametrize("path", ["", "/mcp", "/mcp/crm", "/mcp/virtual/desk", "/agents/sales", "/api"])
async def test_each_resource_names_itself_and_who_vouches_for_people(http: httpx.AsyncClient, path: str) -> None:
    document = (await http.get(f"/.well-known/oauth-protected-resource{path}")).json()
    assert document["resource"] == f"{GW}{path}"
    assert document["authorization_servers"] == ["https://idp.test", GW]
    assert document["bearer_methods_supported"] == ["header"]
    assert document["scopes_supported"] == ["crm.read"]


@pytest.mark.parametrize("path", ["/", "/mcp/", "/other", "/agents", "/agents/A", "/agents/a/b", "/mcp/a%20b", "/mcp/" + "a" * 65])
async def test_what_is_no_resource_has_no_metadata(http: httpx.AsyncClient, path: str) -> None:
    assert (await http.get(f"/.well-known/oauth-protected-resource{path}")).status_code == 404
