"""Tool arguments that are also sent as `Mcp-Param-*` headers, where the schema marks them with `x-mcp-header` (2026-07-28)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.mcp_client.wire.messages import header_text


@dataclass(frozen=True, slots=True)
class HeaderArgument:
    """One argument and its header. `path` leads to it through `properties`; an integer is compared by its value."""

    path: tuple[str, ...]
    header: str
    is_integer: bool

    def header_value(self, arguments: Mapping[str, Any]) -> str | None:
        """The header's value; None for an argument that is absent, null, or not a scalar."""
        value = self.find_value(arguments)
        if isinstance(value, bool):
            return "true" if value else "false"
        return str(value) if isinstance(value, str | int | float) else None

    def find_value(self, arguments: Any) -> Any:
        for name in self.path:
            arguments = arguments.get(name) if isinstance(arguments, dict) else None
        return arguments


def find_header_arguments(schema: Any, path: tuple[str, ...] = ()) -> Iterator[HeaderArgument]:
    """Yields the marked arguments of a schema, which was validated at registration."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return
    for name, inner in properties.items():
        mark = inner.get("x-mcp-header") if isinstance(inner, dict) else None
        if isinstance(mark, str):
            yield HeaderArgument((*path, name), f"mcp-param-{mark.lower()}", inner.get("type") == "integer")
        yield from find_header_arguments(inner, (*path, name))


def headers_for(header_arguments: tuple[HeaderArgument, ...], arguments: Mapping[str, Any]) -> dict[str, str]:
    """The headers for the arguments; none for one that is absent, null, or not a scalar."""
    found = ((mark.header, mark.header_value(arguments)) for mark in header_arguments)
    return {name: header_text(text) for name, text in found if text is not None}
