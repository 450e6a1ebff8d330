"""Claims about metadata and challenges of OAuth: what is read of them, and what is not believed."""

import json
import time
from urllib.parse import parse_qsl, urlsplit

import pytest

from adapters.contract import UpstreamFault
from adapters.oauth.discovery import AuthorizationServer as Metadata
from adapters.oauth.discovery import covers, discover_authorization_server, is_confidential, parse_challenge
from adapters.oauth.grants import OwnClient, consent_url
from adapters.upstream.egress import HttpResponse


@pytest.mark.parametrize(
    ("url", "fit"),
    [
        ("https://as.example/token", True),
        ("http://127.0.0.1:9/token", True),
        ("http://as.example/token", False),
        ("javascript:alert(1)", False),
        ("https://as.example/token#x", False),
        ("https:///token", False),
        ("https://[bad/token", False),
    ],
)
def test_endpoints_are_confidential(url: str, fit: bool) -> None:
    assert is_confidential(url) is fit


def test_a_challenge_is_read_among_others() -> None:
    read = parse_challenge(
        'Basic realm="a, Bearer", Bearer error="insufficient_scope", scope="a b \\"x", resource_metadata="https://s/m", DPoP algs="ES256"'
    )
    assert read.error == "insufficient_scope"
    assert read.scopes == {"a", "b"}
    assert read.metadata_url == "https://s/m"
    assert parse_challenge("Negotiate") == parse_challenge("") == ("", frozenset(), "")


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("Bearer error=invalid_token", "invalid_token"),
        ('Bearer realm="", error = "a\\"b"', 'a"b'),
        ('Bearer error="never closed', "never closed"),
        ("Bearer resource_metadata=https://s/m?a=b, error=x", "x"),
        ("Basic abc=, Bearer error=x", "x"),
        ("Bearer , , error=x", "x"),
    ],
)
def test_a_challenge_that_is_written_carelessly_is_read(header: str, error: str) -> None:
    assert parse_challenge(header).error == error


def test_a_consent_address_keeps_the_query_that_the_endpoint_has() -> None:
    at = Metadata("https://as", "https://as/t", "https://as/a?x=1")
    own = OwnClient("d", "k", "j", "https://gw/cb", lambda claims, typ: "", time.time)
    query = dict(parse_qsl(urlsplit(consent_url(at, own, "me", {"state": "s", "scope": "offline_access"})).query))
    assert query["x"] == "1"
    assert query["state"] == "s"
    assert query["prompt"] == "consent"


async def test_a_metadata_document_that_is_none_is_not_believed() -> None:
    async def fetch(url: str, *, limit: int, timeout: float) -> HttpResponse:  # noqa: ASYNC109 (a fake of the guard)
        return HttpResponse(200, {}, json.dumps({"issuer": "https://as", "token_endpoint": "http://as/token"}).encode())

    with pytest.raises(UpstreamFault, match="can't be used"):
        await discover_authorization_server(fetch, "https://as")


# attack VLT-05
@pytest.mark.parametrize(
    ("resource", "url", "covered"),
    [
        ("https://crm.example/mcp", "https://crm.example/mcp", True),
        ("https://crm.example/mcp", "https://CRM.example:443/mcp/", True),
        ("https://crm.example/mcp", "https://crm.example/mcp/deeper", True),
        ("https://crm.example", "https://crm.example/mcp", True),
        ("https://crm.example/mcp", "https://crm.example/mcp2", False),
        ("https://crm.example/mcp", "https://crm.example/other", False),
        ("https://crm.example/mcp", "https://crm.example/", False),
        ("https://crm.example/mcp", "https://crm.example:8443/mcp", False),
        ("https://crm.example/mcp", "http://crm.example/mcp", False),
        ("https://crm.example/mcp", "https://evil.example/mcp", False),
        ("https://crm.example/mcp?x=1", "https://crm.example/mcp", False),
        ("urn:crm", "urn:crm", False),
    ],
)
def test_a_credential_is_for_its_resource_and_what_lies_below(resource: str, url: str, covered: bool) -> None:
    assert covers(resource, url) is covered
