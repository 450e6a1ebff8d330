"""Finds the authorization server of an upstream: its challenge, resource metadata (RFC 9728) and server metadata (RFC 8414, OIDC)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

from adapters.contract import UpstreamFault
from adapters.upstream.http1.responses import HttpResponse
from policies.strict_json import BadJson, parse
from policies.vault.credentials import origin_of

DOCUMENT_MAX: Final = 256 << 10  # bytes
FETCH_SECONDS: Final = 10.0
SCOPES_MAX: Final = 200
HEADER_MAX: Final = 8192
RESOURCE_METADATA_PATH: Final = "/.well-known/oauth-protected-resource"
SERVER_METADATA_PATH: Final = "/.well-known/oauth-authorization-server"
OPENID_METADATA_PATH: Final = "/.well-known/openid-configuration"
LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
UNUSABLE_TEXT: Final = "The server's authorization server can't be used"
_SCOPE: Final = re.compile(r"[!#-\[\]-~]{1,256}")
_WORD: Final = re.compile(r'([^\s,="]++)(?:[ \t]*+=[ \t]*+("(?:[^"\\]|\\.)*+"?|[^\s,"]++))?')  # a scheme, or a parameter and its value


class FetchDocument(Protocol):
    """Fetches a document (adapters/upstream/egress.py)."""

    async def __call__(self, url: str, *, limit: int, timeout: float) -> HttpResponse: ...  # noqa: ASYNC109 (covers reading too)


class Challenge(NamedTuple):
    """The Bearer challenge in a WWW-Authenticate header (RFC 6750 s3, RFC 9728 s5.1)."""

    error: str = ""
    scopes: frozenset[str] = frozenset()
    metadata_url: str = ""


class ProtectedResource(NamedTuple):
    """A protected resource. `id` is requested in tokens (RFC 8707); `issuers` are its authorization servers."""

    id: str
    issuers: tuple[str, ...]
    scopes: frozenset[str]


class _ResourceDocument(msgspec.Struct):
    resource: str
    authorization_servers: list[str] = []
    scopes_supported: list[str] = []


@dataclass(frozen=True, slots=True)
class AuthorizationServer:
    """An authorization server. `documents`: supports client metadata documents (CIMD). `names_itself`: sends `iss` (RFC 9207)."""

    issuer: str
    token_endpoint: str
    authorization_endpoint: str = ""
    registration_endpoint: str = ""
    methods: tuple[str, ...] = ("client_secret_basic",)  # RFC 8414 s2: the default
    scopes: frozenset[str] = frozenset()
    documents: bool = False
    names_itself: bool = False
    pkce: bool = False
    revocation_endpoint: str = ""  # RFC 7009


class _ServerDocument(msgspec.Struct):
    issuer: str
    token_endpoint: str
    authorization_endpoint: str = ""
    registration_endpoint: str = ""
    revocation_endpoint: str = ""
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    scopes_supported: list[str] = []
    code_challenge_methods_supported: list[str] = []
    client_id_metadata_document_supported: bool = False
    authorization_response_iss_parameter_supported: bool = False


def parse_challenge(header: str) -> Challenge:
    """The parameters of the Bearer scheme among all schemes in one header."""
    found: dict[str, str] = {}
    scheme = ""
    for word, value in _WORD.findall(header[:HEADER_MAX]):
        if not value:
            scheme = word.lower()
        elif scheme == "bearer":
            found.setdefault(word.lower(), re.sub(r"\\(.)", r"\1", value[1:].removesuffix('"')) if value.startswith('"') else value)
    return Challenge(found.get("error", ""), parse_scopes(found.get("scope", "")), found.get("resource_metadata", ""))


def parse_scopes(text: str | Sequence[str]) -> frozenset[str]:
    """The valid scope tokens (RFC 6749 s3.3) of a text or list."""
    tokens = text.split(" ") if isinstance(text, str) else text
    return frozenset(token for token in tokens[:SCOPES_MAX] if _SCOPE.fullmatch(token))


def is_confidential(url: str) -> bool:
    """Whether requests to a URL are confidential: https, or this machine. OAuth uses no other endpoints."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    is_loopback = parts.scheme == "http" and parts.hostname in LOOPBACK
    return bool(parts.hostname) and not parts.fragment and (is_loopback or parts.scheme == "https")


async def discover_resource(fetch: FetchDocument, url: str, metadata_url: str) -> ProtectedResource | None:
    """The metadata of the server at `url`, from `metadata_url` of its challenge or the well-known URLs; None without any.

    Raises UpstreamFault for metadata that can't be trusted.
    """
    parts = urlsplit(url)
    base, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    for place in (
        [metadata_url] if metadata_url else dict.fromkeys((f"{base}{RESOURCE_METADATA_PATH}{path}", f"{base}{RESOURCE_METADATA_PATH}"))
    ):
        document = await _fetch_document(fetch, place)
        if document is None:
            continue
        try:
            metadata = msgspec.convert(document, _ResourceDocument)
        except msgspec.ValidationError as error:
            raise UpstreamFault("The server's resource metadata can't be used", str(error)[:200]) from None
        if not covers(metadata.resource, url):  # RFC 9728 s3.3: a server could otherwise obtain tokens for another server's resource
            raise UpstreamFault("The server's resource metadata is of another resource", metadata.resource[:200])
        if not metadata.authorization_servers:
            raise UpstreamFault("The server's resource metadata names no authorization server")
        return ProtectedResource(metadata.resource, tuple(metadata.authorization_servers), parse_scopes(metadata.scopes_supported))
    return None


async def discover_authorization_server(fetch: FetchDocument, issuer: str) -> AuthorizationServer:
    """The metadata of an authorization server. Raises UpstreamFault, also for metadata of another issuer (RFC 8414 s3.3)."""
    if not is_confidential(issuer) or urlsplit(issuer).query:
        raise UpstreamFault(UNUSABLE_TEXT, "the issuer is not an https URL")
    parts = urlsplit(issuer)
    base, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    places = [f"{base}{SERVER_METADATA_PATH}{path}", f"{base}{OPENID_METADATA_PATH}{path}", f"{base}{path}{OPENID_METADATA_PATH}"]
    for place in dict.fromkeys(places):
        document = await _fetch_document(fetch, place)
        if document is not None:
            return _read_authorization_server(document, issuer)
    raise UpstreamFault(UNUSABLE_TEXT, "no metadata")


def _read_authorization_server(document: Mapping[str, Any], issuer: str) -> AuthorizationServer:
    try:
        metadata = msgspec.convert({name: value for name, value in document.items() if value is not None}, _ServerDocument)
    except msgspec.ValidationError as error:
        raise UpstreamFault(UNUSABLE_TEXT, str(error)[:200]) from None
    if metadata.issuer != issuer:
        raise UpstreamFault(UNUSABLE_TEXT, "the metadata is of another issuer")
    endpoints = (metadata.token_endpoint, metadata.authorization_endpoint, metadata.registration_endpoint)
    if not all(is_confidential(each) for each in endpoints if each):
        raise UpstreamFault(UNUSABLE_TEXT, "an endpoint is not an https URL")
    return AuthorizationServer(
        issuer,
        *endpoints,
        methods=metadata.token_endpoint_auth_methods_supported,
        scopes=parse_scopes(metadata.scopes_supported),
        documents=metadata.client_id_metadata_document_supported,
        names_itself=metadata.authorization_response_iss_parameter_supported,
        pkce="S256" in metadata.code_challenge_methods_supported,
        revocation_endpoint=metadata.revocation_endpoint if is_confidential(metadata.revocation_endpoint) else "",
    )


def covers(resource: str, url: str) -> bool:
    """Whether `url` is the resource or below it: the same origin, and its path is a prefix up to a slash."""
    if not origin_of(resource) or origin_of(resource) != origin_of(url):
        return False
    above, path = urlsplit(resource), urlsplit(url).path
    covered_path = above.path.rstrip("/")
    return not above.query and not above.fragment and (path.rstrip("/") == covered_path or path.startswith(f"{covered_path}/"))


async def _fetch_document(fetch: FetchDocument, url: str) -> Mapping[str, Any] | None:
    """The JSON object at a URL, or None without one."""
    fetched = await fetch(url, limit=DOCUMENT_MAX, timeout=FETCH_SECONDS)
    if fetched.status != 200:
        return None
    try:
        document = parse(fetched.body)
    except BadJson:
        return None
    return document if isinstance(document, dict) else None
