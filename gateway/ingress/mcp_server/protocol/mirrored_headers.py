"""Compares a client's `Mcp-Param-*` headers with its arguments (2026-07-28)."""

import re
from collections.abc import Mapping
from typing import Any

from adapters.mcp_client.wire.messages import HEADER_MISMATCH
from adapters.mcp_client.wire.param_headers import HeaderArgument
from gateway.ingress.http.asgi import Scope
from gateway.ingress.mcp_server.protocol.modern import BadEnvelope, decode_header, routing_header

_DECIMAL = re.compile(r"(-?[0-9]{1,400})(?:\.0{1,20})?")


def check_mirrored_headers(scope: Scope, mirrored_params: tuple[HeaderArgument, ...], arguments: Mapping[str, Any]) -> None:
    """Raises BadEnvelope unless each header and its argument are both present and equal, or both absent."""
    for mark in mirrored_params:
        header_value = routing_header(scope, mark.header.encode())
        value, text = mark.find_value(arguments), mark.header_value(arguments)
        if (header_value is None) != (text is None) or (
            header_value is not None and not _is_same_value(mark, decode_header(header_value), value, text)
        ):
            raise BadEnvelope(HEADER_MISMATCH, "an Mcp-Param header does not match its argument")


def _is_same_value(mirrored_param: HeaderArgument, header_text: str | None, value: Any, argument_text: str | None) -> bool:
    if header_text == argument_text:
        return True
    number = _DECIMAL.fullmatch(header_text) if header_text is not None and mirrored_param.is_integer else None
    return number is not None and isinstance(value, int | float) and not isinstance(value, bool) and int(number[1]) == value
