"""The service parameters of A2A (1.0 s3.2.6) as HTTP carries them: version, extensions, and what our own extensions add."""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qs

from msgspec import Struct

from adapters.a2a_client.wire.v1 import ID_LIMIT
from gateway.ingress.http.asgi import BadHeader, Scope, header
from gateway.ingress.http.errors import VersionNotSupported

VERSION: Final = re.compile(r"(\d{1,4}\.\d{1,4})(\.\d{1,6})?")
EXTENSIONS_MAX: Final = 32
FIELDS_MAX: Final = 50  # of a query
NONE: Final = frozenset[str]()
_EVENT_ID: Final = re.compile(r"[0-9]{1,15}")
EXTENSIONS: Final = ("a2a-extensions", "x-a2a-extensions")  # the latter in 0.3
_EXTENSIONS: Final = tuple(name.encode() for name in EXTENSIONS)


class Parameters(Struct, frozen=True):
    """`version` is Major.Minor, empty where none is asked for. `last_event_id` is the number of the last event a client has seen."""

    version: str = ""
    extensions: frozenset[str] = NONE
    idempotency_key: str | None = None
    last_event_id: int | None = None


def read_parameters(scope: Scope, supported: Sequence[str]) -> Parameters:
    """What a request asks for. Raises VersionNotSupported for a version other than those `supported`, and BadHeader."""
    return Parameters(
        _version(asked_version(scope), supported),
        extensions_of([value for key, value in scope["headers"] if key in _EXTENSIONS]),
        idempotency_key(header(scope, b"idempotency-key")),
        event_id(header(scope, b"last-event-id")),
    )


def asked_version(scope: Scope) -> str:
    """As it was sent: in the header, or in the query where a client can't set headers (A2A 1.0 s3.6.1). Raises BadHeader."""
    asked = header(scope, b"a2a-version")
    if asked or not scope["query_string"]:
        return asked or ""
    query: bytes = scope["query_string"]
    try:
        return parse_qs(query.decode("ascii", "replace"), max_num_fields=FIELDS_MAX).get("A2A-Version", [""])[-1]
    except ValueError:
        raise BadHeader(f"the query has more than {FIELDS_MAX} fields") from None


def _version(asked: str, supported: Sequence[str]) -> str:
    """A2A 1.0 s3.6.2: Major.Minor decides, whatever the patch."""
    if not asked or asked in supported:
        return asked
    found = VERSION.fullmatch(asked)
    if found is None or found[1] not in supported:
        raise VersionNotSupported(tuple(supported))
    return found[1]


def extensions_of(lines: list[bytes]) -> frozenset[str]:
    if not lines:
        return NONE
    uris = frozenset(uri for line in lines for each in line.decode("latin-1").split(",") if (uri := each.strip(" \t")))
    if len(uris) > EXTENSIONS_MAX or any(len(uri) > ID_LIMIT or not uri.isascii() for uri in uris):
        raise BadHeader(f"a2a-extensions names more than {EXTENSIONS_MAX} extensions, or one of more than {ID_LIMIT} characters")
    return uris


def idempotency_key(key: str | None) -> str | None:
    if key and (len(key) > ID_LIMIT or not key.isprintable()):
        raise BadHeader(f"idempotency-key is longer than {ID_LIMIT} characters, or has some that can't be seen")
    return key or None


def event_id(text: str | None) -> int | None:
    if not text:
        return None
    if not _EVENT_ID.fullmatch(text):
        raise BadHeader("last-event-id is not the id of one of our events")
    return int(text)
