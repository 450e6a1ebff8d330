"""Whether a client's `Mcp-Param-*` headers say the same as its arguments (2026-07-28)."""

import re
from collections.abc import Mapping
from typing import Any

from adapters.mcp_client.wire.messages import HEADER_MISMATCH
from adapters.mcp_client.wire.param_headers import Mirrored
from gateway.ingress.http.asgi import Scope
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope, decoded, routing

_DECIMAL = re.compile(r"(-?[0-9]{1,400})(?:\.0{1,20})?")


def check(scope: Scope, marks: tuple[Mirrored, ...], arguments: Mapping[str, Any]) -> None:
    """Each header and its argument must be there together and say the same. Raises BadEnvelope."""
    for mark in marks:
        given = routing(scope, mark.header.encode())
        value, text = mark.value(arguments), mark.text(arguments)
        if (given is None) != (text is None) or (given is not None and not _same(mark, decoded(given), value, text)):
            raise BadEnvelope(HEADER_MISMATCH, "an Mcp-Param header does not match its argument")


def _same(mark: Mirrored, given: str | None, value: Any, text: str | None) -> bool:
    if given == text:
        return True
    number = _DECIMAL.fullmatch(given) if given is not None and mark.integer else None
    return number is not None and isinstance(value, int | float) and not isinstance(value, bool) and int(number[1]) == value
