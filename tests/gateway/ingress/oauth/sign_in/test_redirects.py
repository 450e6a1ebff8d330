"""Which redirect URIs a client may register, and which of a request are the registered one."""

import pytest

from gateway.ingress.oauth.sign_in.clients.redirects import BadRedirect, find_registered, parse_redirect

CURSOR = "cursor://anysphere.cursor-mcp/oauth/callback"


@pytest.mark.parametrize(
    ("uri", "kind", "place"),
    [
        ("https://vscode.dev/redirect", "https", "vscode.dev"),
        ("https://app.example.com:8443/cb?x=1", "https", "app.example.com"),
        ("http://localhost/callback", "loopback", "localhost"),
        ("http://127.0.0.1:33418", "loopback", "127.0.0.1"),
        ("http://[::1]:9/cb", "loopback", "[::1]"),
        (CURSOR, "private", "cursor"),
    ],
)
def test_a_redirect_says_where_it_leads(uri: str, kind: str, place: str) -> None:
    found = parse_redirect(uri, {CURSOR})
    assert (found.kind, found.place) == (kind, place)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "http://app.example.com/cb",
        "http://127.0.0.1.evil.test/cb",
        "http://localhost@evil.test/cb",
        "http://localhost:1@evil.test/cb",
        "http://127.0.0.2/cb",
        "http://localhost:70000/cb",
        "http://localhost:/cb",
        "https://user@app.example.com/cb",
        "https://app.example.com/cb#fragment",
        "https://аpp.example.com/cb",
        "https://APP.example.com/cb",
        "https://app.example.com\\@evil.test/cb",
        "https://app.example.com/a b",
        "https://app..example.com/cb",
        "https:///cb",
        "https:app.example.com/cb",
        "javascript:alert(1)",
        "data:text/html,x",
        "cursor://another/callback",
        f"{CURSOR}/more",
        f"{CURSOR}#x",
        "https://app.example.com/" + "a" * 2048,
    ],
)
def test_a_redirect_that_could_mislead_is_refused(uri: str) -> None:  # attack OAU-02
    with pytest.raises(BadRedirect):
        parse_redirect(uri, {CURSOR})


@pytest.mark.parametrize(
    ("registered", "requested"),
    [
        ("http://localhost/callback", "http://localhost:51234/callback"),
        ("http://127.0.0.1:33418/", "http://127.0.0.1:59656/"),
        ("http://127.0.0.1:33418", "http://127.0.0.1:59656/"),
        ("http://[::1]/cb", "http://[::1]:1/cb"),
        ("https://vscode.dev/redirect", "https://vscode.dev/redirect"),
        (CURSOR, CURSOR),
    ],
)
def test_only_the_port_of_a_loopback_address_may_differ(registered: str, requested: str) -> None:
    found = find_registered(requested, [registered], {CURSOR})
    assert found is not None and found.uri == requested


@pytest.mark.parametrize(
    ("registered", "requested"),
    [
        ("http://localhost/callback", "http://127.0.0.1:5/callback"),
        ("http://localhost/callback", "http://localhost:5/callback/"),
        ("http://localhost/callback", "http://localhost:5/callback?next=evil"),
        ("http://localhost/callback", "http://localhost:5/Callback"),
        ("http://localhost/callback", "http://localhost:5/x/../callback"),
        ("https://app.example.com/cb", "https://app.example.com:8443/cb"),
        ("https://app.example.com/cb", "https://app.example.com/cb/"),
        ("https://app.example.com/cb", "https://app.example.com/cb?x=1"),
        ("https://app.example.com/cb", "http://app.example.com/cb"),
        ("https://app.example.com/cb", ""),
    ],
)
def test_any_other_difference_is_another_place(registered: str, requested: str) -> None:  # attack OAU-02
    assert find_registered(requested, [registered], {CURSOR}) is None
