"""Redirect URIs: which ones a client may register, and when the one of a request is the registered one (RFC 6749 s3.1.2, RFC 8252 s7)."""

import re
from collections.abc import Collection
from typing import Final, Literal, NamedTuple

URI_MAX: Final = 2048  # characters
_CHARACTERS: Final = re.compile(r"[!$-;=?-\[\]_a-z~%]+")  # printable ASCII without space, quotes, #, <, >, backslash, ^, `, {, |, }
_LOOPBACK: Final = re.compile(r"(http://(?:localhost|127\.0\.0\.1|\[::1\]))(?::([1-9][0-9]{0,4}))?([/?].*)?")
_HTTPS: Final = re.compile(r"https://([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::[1-9][0-9]{0,4})?([/?].*)?")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,63}")

FOREIGN_SCHEMES: Final = frozenset(
    {"http", "https", "ws", "wss", "ftp", "file", "data", "blob", "javascript", "vbscript", "about", "mailto", "tel", "chrome"}
)

RedirectKind = Literal["https", "loopback", "private"]


class BadRedirect(ValueError):
    """The text can't be a redirect URI here; the message says why and quotes nothing."""


class Redirect(NamedTuple):
    """A valid redirect URI. `place` is what people read: a host, or the scheme of an application.

    `without_port` is the URI as it is compared; only the port of a loopback address does not count, since a client takes any free one.
    """

    uri: str
    kind: RedirectKind
    place: str
    without_port: str


def parse_redirect(uri: str, private_uris: Collection[str]) -> Redirect:
    """Parses a redirect URI. `private_uris` are the accepted ones of applications' own schemes, compared exactly. Raises BadRedirect."""
    if uri in private_uris:
        return Redirect(uri, "private", uri.partition(":")[0], uri)
    if len(uri) > URI_MAX or not _CHARACTERS.fullmatch(uri):
        raise BadRedirect("a redirect URI has at most 2048 characters of ASCII, and no fragment, space or backslash")
    if (found := _LOOPBACK.fullmatch(uri)) is not None:
        origin, port, rest = found.groups()
        if port is not None and int(port) > 65_535:
            raise BadRedirect("a redirect URI has a port above 65535")
        return Redirect(uri, "loopback", origin.removeprefix("http://"), origin + ("/" if rest in (None, "/") else str(rest)))
    if (found := _HTTPS.fullmatch(uri)) is not None:
        if ".." in found[1]:
            raise BadRedirect("the host of a redirect URI is not a host name")
        return Redirect(uri, "https", found[1], uri)
    scheme = uri.partition(":")[0]
    if scheme in ("http", "https") or not _SCHEME.fullmatch(scheme):
        raise BadRedirect("a redirect URI is https with a host in lower case and no user name, or http on localhost, 127.0.0.1 or [::1]")
    raise BadRedirect("redirect URIs of applications' own schemes have to be listed in sign_in.redirect_uris")


def check_private_redirect(uri: str) -> None:
    """Raises BadRedirect for a URI that is not of an application's own scheme, and so can't be allowed as one (RFC 8252 s7.1)."""
    scheme = uri.partition(":")[0]
    if len(uri) > URI_MAX or not _CHARACTERS.fullmatch(uri) or not _SCHEME.fullmatch(scheme) or f"{scheme}:/" != uri[: len(scheme) + 2]:
        raise BadRedirect("write the whole redirect URI of the application, such as com.example.app:/callback, in lower case")
    if scheme in FOREIGN_SCHEMES:
        raise BadRedirect(f"{scheme} is no application's own scheme; a client registers web and loopback addresses by itself")


def find_registered(uri: str, registered: Collection[str], private_uris: Collection[str]) -> Redirect | None:
    """The redirect of a request if it equals a registered one, apart from the port of a loopback address; else None."""
    try:
        requested = parse_redirect(uri, private_uris)
    except BadRedirect:
        return None
    if uri in registered:
        return requested
    if requested.kind != "loopback":
        return None
    for each in registered:
        try:
            known = parse_redirect(each, private_uris)
        except BadRedirect:
            continue
        if known.kind == "loopback" and known.without_port == requested.without_port:
            return requested
    return None
