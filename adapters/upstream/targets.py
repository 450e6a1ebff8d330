"""The targets that the gateway may send requests to: checks a URL's text, and every address of its host."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote, urlsplit

from yarl import URL

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

URL_MAX = 2048
PUBLIC_PORTS = frozenset({80, 443, *range(8000, 9000)})  # other ports only where the operator allowed the target
# Services that must never receive a request, even on an allowed host: the "bad ports" of the Fetch standard, and stores without passwords.
SERVICE_PORTS = frozenset(
    {0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113, 115}
    | {117, 119, 123, 135, 137, 138, 139, 143, 161, 179, 389, 427, 445, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556}
    | {563, 587, 601, 636, 873, 989, 990, 993, 995, 1433, 1521, 1719, 1720, 1723, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 3659}
    | {4045, 4190, 5060, 5061, 5432, 5672, 5900, 5984, 6000, 6379, 6443, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 9042, 9092, 9200}
    | {9300, 10080, 10250, 11211, 27017}
)
# Networks that `ipaddress` calls global, or with an embedded IPv4 address that a router may unwrap (6to4, NAT64, Teredo, …).
REFUSED_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48", "::/96", "::ffff:0:0:0/96", "fec0::/10"),
        *("192.88.99.0/24", "224.0.0.0/4", "ff00::/8", "3fff::/20", "5f00::/16", "168.63.129.16/32"),
    )
)
METADATA_ADDRESSES = frozenset(ipaddress.ip_address(text) for text in ("168.63.129.16", "fd00:ec2::254"))
_HOST = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.?")
_URL_CHARACTERS = re.compile(r"[!#-;=?-\[\]_a-z~]+")  # printable ASCII without space, quotes, <, >, backslash, ^, `, {, |, }
_GRPC_TARGET = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^/:@?#\[\]]+)(?::[0-9]{1,5})?")
_NUMERIC = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)")  # WHATWG URL: a last label like this makes the host an IPv4 address


class EgressRefused(Exception):
    """The target is not allowed; `public` says why and quotes nothing."""

    def __init__(self, public: str) -> None:
        super().__init__(public)
        self.public = public


class TargetPolicy:
    """Allows public addresses, and the operator's networks, addresses and host names. Raises ValueError for an invalid entry."""

    def __init__(self, allow: Sequence[str] = ()) -> None:
        entries = [entry.strip().lower().rstrip(".") for entry in allow]
        self._networks = tuple(network for entry in entries if (network := _parse_network(entry)))
        self._hosts = frozenset(entry for entry in entries if not _parse_network(entry))
        for host in self._hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(f"egress.allow: {host!r} is neither a network such as 10.0.0.0/8 nor a host name")

    def check(self, text: str) -> URL:
        """Parses an http(s) URL and checks its scheme, port, user info and literal address. Raises EgressRefused."""
        if len(text) > URL_MAX or not _URL_CHARACTERS.fullmatch(text):
            raise EgressRefused("the URL is too long or has characters that a URL can't have")
        try:
            url = URL(text)
        except ValueError:
            raise EgressRefused("the URL can't be read") from None
        if url.scheme not in ("http", "https"):
            raise EgressRefused("the URL has to begin with http:// or https://")
        if "@" in text.split("//", 1)[-1].split("/", 1)[0]:
            raise EgressRefused("the URL carries a user name or password")
        host, port = url.raw_host, url.port
        if not host or port is None:
            raise EgressRefused("the URL has no host")
        self._check_host(host, port)
        return _url_as_written(url, text)

    def vet_addresses(self, host: str, port: int, addresses: Iterable[str]) -> None:
        """Checks every address of `host`. Raises EgressRefused when one is not allowed."""
        named = host.lower().rstrip(".") in self._hosts
        for text in addresses:
            if not self._is_allowed_address(text, port, named):
                raise EgressRefused("the address is private or reserved, or its port is not allowed")

    def _check_host(self, host: str, port: int) -> None:
        if port in SERVICE_PORTS:
            raise EgressRefused("the port belongs to another service")
        if ":" in host:
            self.vet_addresses(host, port, [host])
        elif _NUMERIC.fullmatch(host.rstrip(".").rsplit(".", 1)[-1]):
            if str(_parse_address(host)) != host:
                raise EgressRefused("the host is an address in an odd form")
            self.vet_addresses(host, port, [host])
        elif not _HOST.fullmatch(host):
            raise EgressRefused("the host name can't be read")

    def _is_allowed_address(self, text: str, port: int, is_allowed_host: bool) -> bool:
        address = _parse_address(text)
        if address is None or port in SERVICE_PORTS:
            return False
        if any(address.version == network.version and address in network for network in self._networks):
            return True
        if is_allowed_host and address.is_private and not _is_never_allowed_by_name(address):
            return True
        if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
            return False
        if any(address.version == network.version and address in network for network in REFUSED_NETWORKS):
            return False
        return is_allowed_host or port in PUBLIC_PORTS


def without_path(url: str) -> str:
    """The scheme, host and port of a URL as they are written. Its user, path and query are left out, since they may be secrets."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _url_as_written(url: URL, text: str) -> URL:
    """The URL with its path as encoded in the text, which signatures cover, if that is the same path."""
    path = text.split("//", 1)[-1].partition("?")[0].partition("#")[0].partition("/")
    written = path[1] + path[2]
    if "%" not in written or written == url.raw_path or unquote(written) != unquote(url.raw_path):
        return url
    return URL.build(scheme=url.scheme, authority=url.raw_authority, path=written, query_string=url.raw_query_string, encoded=True)


def grpc_url(target: str) -> str:
    """The URL that vets a gRPC target such as `host:port`, which cards give without a scheme; http means no TLS.

    Returns other names of gRPC, such as `unix:/path`, unchanged.
    """
    text = target.removeprefix("dns:///").removeprefix("dns:")
    scheme, found, rest = text.partition("://")
    if not found:
        return f"https://{text}" if _GRPC_TARGET.fullmatch(text) else target
    return {"grpc": "http://", "grpcs": "https://"}.get(scheme.lower(), f"{scheme}://") + rest


def has_no_scheme(target: str) -> bool:
    """Whether a gRPC target does not say whether to use TLS."""
    return "://" not in target.removeprefix("dns:///")


def _is_never_allowed_by_name(address: Address) -> bool:
    """Whether an address is refused even for an allowed name: link-local or metadata, which the name's DNS could choose."""
    return address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved or address in METADATA_ADDRESSES


def _parse_address(text: str) -> Address | None:
    """An address without a zone, unwrapped from IPv4-mapped IPv6 (::ffff:0:0/96); None if invalid."""
    if "%" in text:
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _parse_network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None
