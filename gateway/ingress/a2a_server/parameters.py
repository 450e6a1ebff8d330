"""Reads the service parameters of A2A (1.0 s3.2.6) from HTTP: version, extensions, and those that the gateway's extensions add."""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qs

from msgspec import Struct

from adapters.a2a_client.wire.v1 import ID_LIMIT
from gateway.ingress.http.asgi import BadHeader, Scope, header, headers_by_name
from gateway.ingress.http.errors import VersionNotSupported

VERSION_FORMAT: Final = re.compile(r"(\d{1,4}\.\d{1,4})(\.\d{1,6})?")
EXTENSIONS_MAX: Final = 32
QUERY_FIELDS_MAX: Final = 50
NO_EXTENSIONS: Final = frozenset[str]()
_EVENT_ID: Final = re.compile(r"[0-9]{1,15}")
EXTENSION_HEADERS: Final = ("a2a-extensions", "x-a2a-extensions")  # the latter in 0.3
_EXTENSION_HEADER_BYTES: Final = tuple(name.encode() for name in EXTENSION_HEADERS)


class ServiceParameters(Struct, frozen=True):
    """The service parameters of a request.

    `version` is Major.Minor, or "" when the request names none. `last_event_id` is the number of the last event that the client has
    received.
    """

    version: str = ""
    extensions: frozenset[str] = NO_EXTENSIONS
    idempotency_key: str | None = None
    last_event_id: int | None = None


def read_service_parameters(scope: Scope, supported: Sequence[str]) -> ServiceParameters:
    """Reads the service parameters. Raises VersionNotSupported for a version that is not in `supported`, and BadHeader."""
    return ServiceParameters(
        _supported_version(requested_version(scope), supported),
        _extensions_in(scope),
        parse_idempotency_key(header(scope, b"idempotency-key")),
        parse_event_id(header(scope, b"last-event-id")),
    )


def requested_version(scope: Scope) -> str:
    """Returns the version as the client sent it, in the header or, where a client can't set headers, in the query (A2A 1.0 s3.6.1).

    Raises BadHeader.
    """
    version = header(scope, b"a2a-version")
    if version or not scope["query_string"]:
        return version or ""
    query: bytes = scope["query_string"]
    try:
        return parse_qs(query.decode("ascii", "replace"), max_num_fields=QUERY_FIELDS_MAX).get("A2A-Version", [""])[-1]
    except ValueError:
        raise BadHeader(f"the query has more than {QUERY_FIELDS_MAX} fields") from None


def _supported_version(requested: str, supported: Sequence[str]) -> str:
    """Returns Major.Minor of a requested version; its patch is ignored (A2A 1.0 s3.6.2). Raises VersionNotSupported."""
    if not requested or requested in supported:
        return requested
    found = VERSION_FORMAT.fullmatch(requested)
    if found is None or found[1] not in supported:
        raise VersionNotSupported(tuple(supported))
    return found[1]


def _extensions_in(scope: Scope) -> frozenset[str]:
    if headers_by_name(scope).keys().isdisjoint(_EXTENSION_HEADER_BYTES):
        return NO_EXTENSIONS
    return parse_extensions([value for key, value in scope["headers"] if key in _EXTENSION_HEADER_BYTES])


def parse_extensions(lines: list[bytes]) -> frozenset[str]:
    if not lines:
        return NO_EXTENSIONS
    uris = frozenset(uri for line in lines for each in line.decode("latin-1").split(",") if (uri := each.strip(" \t")))
    if len(uris) > EXTENSIONS_MAX or any(len(uri) > ID_LIMIT or not uri.isascii() for uri in uris):
        raise BadHeader(f"a2a-extensions names more than {EXTENSIONS_MAX} extensions, or one of more than {ID_LIMIT} characters")
    return uris


def parse_idempotency_key(key: str | None) -> str | None:
    if key and (len(key) > ID_LIMIT or not key.isprintable()):
        raise BadHeader(f"idempotency-key is longer than {ID_LIMIT} characters, or has unprintable ones")
    return key or None


def parse_event_id(text: str | None) -> int | None:
    if not text:
        return None
    if not _EVENT_ID.fullmatch(text):
        raise BadHeader("last-event-id is not the id of an event of this gateway")
    return int(text)
