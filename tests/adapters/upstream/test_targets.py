"""Which targets may be called. The lists hold the odd spellings that resolvers and parsers are known to accept."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.upstream.targets import EgressRefused, TargetPolicy, without_path

INNER_HOSTS = [
    "127.0.0.1",
    "[::1]",
    "0",
    "0.0.0.0",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "127.1",
    "127.0.0.1.",
    "[::ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[2002:7f00:1::]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[fec0::1]",
    "[fd00:ec2::254]",
    "[fe80::1]",
    "[ff02::1]",
    "[::]",
    "[2001:0:1::1]",
    "[3fff::1]",
    "[5f00::1]",
    "169.254.169.254",
    "100.64.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "192.0.0.1",
    "192.88.99.1",
    "168.63.129.16",
]


@pytest.mark.parametrize("host", INNER_HOSTS)
def test_an_inner_address_is_refused_in_every_spelling(host: str) -> None:  # attack SSR-01
    with pytest.raises(EgressRefused):
        TargetPolicy().check(f"http://{host}/card.json")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://a.example/",
        "ftp://a.example/",
        "unix:/run/x.sock",
        "http://u:p@a.example/",
        "http://@a.example/",
        "http://a.example:22/",
        "https://a.example:6379/",
        "http://a.example:0/",
        "http://a.example:99999/",
        "http://a.example/\r\nX: y",
        "http://a.ex\r\nample/",
        "http://\u0430pple.example/",
        "http://\uff11\uff12\uff17.0.0.1/",
        "http://127\u30020\u30020\u30021/",
        "http://a%00.example/",
        "http://a.example\\@b.example/",
        "http://a b.example/",
        "http:///x",
        "//a.example/",
        "",
        "http://a..example/",
        "http://[fe80::1%25eth0]/",
        "http://[::1]a.example/",
        "http://" + "a" * 3000,
        "http://1.2.3.4.5/",
        "http://a.0x1/",
        "https:a.example",
    ],
)
def test_what_is_no_plain_http_url_is_refused(url: str) -> None:  # attack SSR-04
    with pytest.raises(EgressRefused):
        TargetPolicy().check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://agents.example/a?b=c",
        "http://93.184.215.14/",
        "https://[2606:2800:220:1::1]/x",
        "http://agents.example:8080/",
        "https://xn--bcher-kva.example/",
    ],
)
def test_a_public_target_may_be_called(url: str) -> None:
    assert str(TargetPolicy().check(url)) == url


def test_an_unusual_port_needs_the_operators_leave() -> None:
    with pytest.raises(EgressRefused):
        TargetPolicy().vet_addresses("agents.example", 31337, ["93.184.215.14"])
    TargetPolicy(["agents.example"]).vet_addresses("agents.example", 31337, ["93.184.215.14"])


def test_every_address_of_a_name_has_to_be_fit() -> None:  # attack SSR-01
    with pytest.raises(EgressRefused):
        TargetPolicy().vet_addresses("agents.example", 443, ["93.184.215.14", "::1"])


def test_an_allowed_network_opens_itself_and_nothing_else() -> None:
    targets = TargetPolicy(["10.1.0.0/16", "::1"])
    targets.check("http://10.1.2.3:31337/")
    targets.check("http://[::1]:31337/")
    targets.check("http://[::ffff:10.1.2.3]:31337/")
    for url in ("http://10.2.0.1/", "http://127.0.0.1/", "http://10.1.2.3:6379/", "http://[::2]/"):
        with pytest.raises(EgressRefused):
            targets.check(url)


def test_an_allowed_name_opens_private_addresses_of_its_own_but_no_metadata_address() -> None:
    targets = TargetPolicy(["Agents.Corp."])
    targets.vet_addresses("agents.corp", 9000, ["10.0.0.7"])
    for host, address in (
        ("other.corp", "10.0.0.7"),
        ("agents.corp", "169.254.169.254"),
        ("agents.corp", "fd00:ec2::254"),
        ("agents.corp", "0.0.0.0"),
    ):
        with pytest.raises(EgressRefused):
            targets.vet_addresses(host, 9000, [address])


def test_a_name_of_the_allow_list_that_is_no_name_is_told() -> None:
    with pytest.raises(ValueError, match=r"egress\.allow"):
        TargetPolicy(["10.0.0.0/99"])


@given(st.ip_addresses())
def test_nothing_that_is_not_global_is_ever_fit(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    inner = address.is_private or address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
    if inner:
        with pytest.raises(EgressRefused):
            TargetPolicy().vet_addresses("agents.example", 443, [str(address)])


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("https://aws.example/runtimes/arn%3Aaws%2Fa/invocations?q=1", "/runtimes/arn%3Aaws%2Fa/invocations?q=1"),
        ("https://aws.example/a%20b/%7Ec", "/a%20b/%7Ec"),
        ("https://aws.example/a/../b", "/b"),
        ("https://aws.example/plain", "/plain"),
    ],
)
def test_a_path_keeps_its_encoding_which_signatures_are_made_over(text: str, path: str) -> None:
    assert TargetPolicy().check(text).raw_path_qs == path


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "0x7f.1"])
def test_an_encoded_path_opens_no_other_host(host: str) -> None:
    with pytest.raises(EgressRefused):
        TargetPolicy().check(f"http://{host}/a%3Ab")


def test_an_encoded_path_changes_nothing_else() -> None:
    url = TargetPolicy(["::1"]).check("http://[::1]:8080/a%3Ab?x=%3A")
    assert (url.raw_host, url.port, str(url)) == ("::1", 8080, "http://[::1]:8080/a%3Ab?x=:")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example/T0/secret?key=1#x", "https://hooks.example"),
        ("https://user:secret@hooks.example:8443/T0", "https://hooks.example:8443"),
        ("http://[::1]:80/a", "http://[::1]:80"),
    ],
)
def test_a_url_is_shown_without_what_may_be_a_secret(url: str, shown: str) -> None:
    assert without_path(url) == shown
