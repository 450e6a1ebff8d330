"""Claims about the authorization servers that a server may name by itself."""

import pytest

from adapters.contract import UpstreamFault
from adapters.oauth.discovery import AuthorizationServer
from adapters.oauth.trusted_issuers import check_endpoints, choose_issuer, is_at_own_host

HERE = "https://mcp.tracker.example/mcp"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (HERE, "https://mcp.tracker.example"),
        (HERE, "https://mcp.tracker.example:8443/tenant"),
        (HERE, "https://login.mcp.tracker.example/tenant"),
        ("https://MCP.Tracker.example", "https://login.mcp.tracker.EXAMPLE."),
        ("http://127.0.0.1:1", "http://localhost:2"),
        ("http://[::1]:1", "http://127.0.0.1:2"),
        ("https://93.184.215.14", "https://93.184.215.14:8443"),
        ("https://mine.vercel.app", "https://mine.vercel.app/as"),
    ],
)
def test_a_server_may_name_what_is_at_its_own_host_or_below(one: str, other: str) -> None:
    assert is_at_own_host(one, other)


# attack SSR-07
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (HERE, "https://login.other.example"),
        (HERE, "https://evil-tracker.example"),
        (HERE, "https://tracker.example.evil.example"),
        (HERE, "https://tracker.example@evil.example"),
        (HERE, "https://login.tracker.example"),
        ("https://evil.co.uk", "https://good.co.uk"),
        ("https://evil.blogspot.co.uk", "https://good.blogspot.co.uk"),
        ("https://evil.pvt.k12.ma.us", "https://good.pvt.k12.ma.us"),
        ("https://mcp.a.com.br", "https://login.b.com.br"),
        ("https://a.vercel.app", "https://b.vercel.app"),
        ("https://93.184.215.14", "https://94.184.215.14"),
        ("http://127.0.0.1:1", "http://127.0.0.2:1"),
        ("http://10.0.0.1", "http://evil.10.0.0.1"),
        ("https://localhost.evil.example", "http://localhost"),
        ("https://example", "https://other"),
        (HERE, "nonsense"),
        ("", ""),
    ],
)
def test_neighbours_and_others_are_strangers(one: str, other: str) -> None:
    assert not is_at_own_host(one, other)
    assert not is_at_own_host(other, one)


# attack SSR-07
@pytest.mark.parametrize("above", ["https://tracker.example", "https://example", "https://co.uk"])
def test_a_server_may_not_name_what_is_above_its_host(above: str) -> None:
    assert not is_at_own_host(HERE if "uk" not in above else "https://evil.co.uk", above)


# attack SSR-07
def test_one_of_another_site_has_to_be_listed() -> None:
    own, foreign = "https://mcp.tracker.example/as", "https://as.other.example"
    assert choose_issuer(HERE, [foreign, own], ()) == own
    assert choose_issuer(HERE, [foreign, own], (foreign,)) == foreign
    with pytest.raises(UpstreamFault, match=r"lists its issuer.*upstream\.auth\.authorization_servers"):
        choose_issuer(HERE, [foreign], (f"{foreign}/",))


# attack SSR-07
@pytest.mark.parametrize("place", ["token_endpoint", "authorization_endpoint", "registration_endpoint"])
def test_endpoints_of_one_that_nobody_listed_are_its_own(place: str) -> None:
    issuer = "https://login.tracker.example"
    fine = {"token_endpoint": f"{issuer}/t", "authorization_endpoint": f"{issuer}/a", "registration_endpoint": ""}
    check_endpoints(AuthorizationServer(issuer, **fine), ())
    strange = AuthorizationServer(issuer, **{**fine, place: "https://collect.evil.example/t"})
    check_endpoints(strange, {issuer})
    with pytest.raises(UpstreamFault, match="endpoints on another host"):
        check_endpoints(strange, ())
