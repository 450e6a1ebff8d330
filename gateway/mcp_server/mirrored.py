"""Arguments that travel as headers too: `Mcp-Param-*`, for tools whose schema marks them with `x-mcp-header` (2026-07-28)."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.mcp_wire import header_text
from gateway.asgi import Scope
from gateway.mcp_server.modern import HEADER_MISMATCH, BadEnvelope, decoded, routing

_DECIMAL = re.compile(r"(-?[0-9]{1,400})(?:\.0{1,20})?")


@dataclass(frozen=True, slots=True)
class Mirrored:
    """One argument and its header. `path` leads to it through `properties`; `integer` is compared by its value."""

    path: tuple[str, ...]
    header: str
    integer: bool


def mirrored(schema: Any, path: tuple[str, ...] = ()) -> Iterator[Mirrored]:
    """The marks of a schema, which was checked when its server was registered."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return
    for name, inner in properties.items():
        mark = inner.get("x-mcp-header") if isinstance(inner, dict) else None
        if isinstance(mark, str):
            yield Mirrored((*path, name), f"mcp-param-{mark.lower()}", inner.get("type") == "integer")
        yield from mirrored(inner, (*path, name))


def headers_for(marks: tuple[Mirrored, ...], arguments: Mapping[str, Any]) -> dict[str, str]:
    """The headers that say what the arguments say; none for an argument that is absent, null, or no plain value."""
    found = ((mark.header, _text(_at(arguments, mark.path))) for mark in marks)
    return {name: header_text(text) for name, text in found if text is not None}


def check(scope: Scope, marks: tuple[Mirrored, ...], arguments: Mapping[str, Any]) -> None:
    """Each header and its argument must be there together and say the same. Raises BadEnvelope."""
    for mark in marks:
        given = routing(scope, mark.header.encode())
        value = _at(arguments, mark.path)
        text = _text(value)
        if (given is None) != (text is None) or (given is not None and not _same(mark, decoded(given), value, text)):
            raise BadEnvelope(HEADER_MISMATCH, "an Mcp-Param header does not match its argument")


def _same(mark: Mirrored, given: str | None, value: Any, text: str | None) -> bool:
    if given == text:
        return True
    number = _DECIMAL.fullmatch(given) if given is not None and mark.integer else None
    return number is not None and isinstance(value, int | float) and not isinstance(value, bool) and int(number[1]) == value


def _at(arguments: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        arguments = arguments.get(name) if isinstance(arguments, dict) else None
    return arguments


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None
