"""Claims about the places of credentials: whose each is, and which servers it is for."""

import pytest

from policies.vault.credentials import ClientRegistration, Credential, CredentialKey, origin_of
from tests.fakes.oauth_bench import grant_of

OWNER = "acme|https://idp|alice"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://crm.example/mcp?a=1#b", "https://crm.example:443"),
        ("https://crm.example:443", "https://crm.example:443"),
        ("http://crm.example/", "http://crm.example:80"),
        ("HTTPS://CRM.Example:8443/x", "https://crm.example:8443"),
        ("https://somebody:secret@crm.example/", "https://crm.example:443"),
        ("http://[FE80::A]:8080/", "http://fe80::a:8080"),
    ],
)
def test_an_origin_is_scheme_host_and_port_however_they_are_written(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "url", ["", "crm.example", "//crm.example", "https:///mcp", "ftp://h", "ftp://h:21", "http://h:99999", "http://h:x"]
)
def test_what_is_no_url_of_the_web_has_no_origin(url: str) -> None:
    assert origin_of(url) == ""


@pytest.mark.parametrize(
    ("tenant", "owner", "opens"),
    [
        ("acme", OWNER, True),
        ("acme", "", True),  # the gateway's own account
        ("acme", "acme|https://idp|bob", False),
        ("acme", "acme|https://other|alice", False),
        ("evil", OWNER, False),
        ("evil", "", False),
    ],
)
def test_a_grant_opens_what_is_its_persons_or_the_gateways_own(tenant: str, owner: str, opens: bool) -> None:
    assert CredentialKey(tenant, owner, "https://as", "https://crm").is_open_to(grant_of("alice")) is opens


def test_each_credential_has_a_place_of_its_own_that_never_changes() -> None:
    """Rows of an earlier version are bound to it."""
    assert CredentialKey("acme", OWNER, "https://as", "https://crm").full_key == ("credential", "acme", OWNER, "https://as", "https://crm")


def test_what_nobody_said_of_a_credential_is_empty() -> None:
    said = Credential("at", "us")
    assert (said.scopes, said.asked, said.expires, said.obtained) == (frozenset(), frozenset(), 0, 0)
    assert (said.refresh_token, said.redirect, said.endpoint, said.id_token) == ("", "", "", "")
    assert (ClientRegistration("https://as", "us").method, ClientRegistration("https://as", "us").secret) == ("none", "")


def test_secrets_do_not_show() -> None:
    shown = repr(Credential("hush-1", "us", refresh_token="hush-2", id_token="hush-3")) + repr(
        ClientRegistration("https://as", "us", secret="hush-4")
    )
    assert "hush" not in shown
    assert "https://as" in shown
