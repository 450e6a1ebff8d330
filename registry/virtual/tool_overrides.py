"""Overrides of a virtual server's tools: title, description, and names, descriptions, defaults and values of arguments."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from registry.names import InvalidMember

TEXT_MAX = 8000  # characters of a title or a description
NAME_MAX = 128
ARGUMENTS_MAX = 200  # of one tool
TEXTS = ("title", "description")
MEMBERS = frozenset({"name", "description", "default", "value"})


class BadOverride(InvalidMember, ValueError):
    """The override is invalid. `field` is a path below the tool's name, such as `arguments.region`; the message is safe to show."""


@dataclass(frozen=True, slots=True)
class ArgumentOverride:
    """How one argument is shown. `default` and `value` are JSON; empty: none.

    An argument with a `value` is hidden from clients, which can't set it.
    """

    server_name: str
    client_name: str
    description: str = ""
    default: str = ""
    value: str = ""

    def to_document(self) -> dict[str, Any]:
        document: dict[str, Any] = {"name": self.client_name} if self.client_name != self.server_name else {}
        document |= {"description": self.description} if self.description else {}
        document |= {"default": json.loads(self.default)} if self.default else {}
        return document | ({"value": json.loads(self.value)} if self.value else {})


@dataclass(frozen=True, slots=True)
class ToolOverride:
    """How one tool is shown. An empty member keeps the server's text."""

    title: str = ""
    description: str = ""
    arguments: tuple[ArgumentOverride, ...] = ()

    @classmethod
    def from_document(cls, document: Any) -> Self:
        """Reads the form that `to_document` returns. Raises BadOverride."""
        if not isinstance(document, Mapping) or document.keys() - {*TEXTS, "arguments"}:
            raise BadOverride("", "must be a mapping with some of: title, description, arguments")
        for name in TEXTS:
            if not isinstance(document.get(name, ""), str) or len(document.get(name, "")) > TEXT_MAX:
                raise BadOverride(name, f"must be a text of at most {TEXT_MAX} characters")
        arguments_document = document.get("arguments", {})
        if not isinstance(arguments_document, Mapping) or len(arguments_document) > ARGUMENTS_MAX:
            raise BadOverride("arguments", f"must be a mapping of at most {ARGUMENTS_MAX}")
        arguments = tuple(_parse_argument(name, each) for name, each in arguments_document.items())
        if len({each.client_name for each in arguments}) < len(arguments):
            raise BadOverride("arguments", "give two arguments one name")
        return cls(document.get("title", ""), document.get("description", ""), arguments)

    def to_document(self) -> dict[str, Any]:
        """The JSON form that `from_document` reads."""
        document = {name: getattr(self, name) for name in TEXTS if getattr(self, name)}
        return document | ({"arguments": {each.server_name: each.to_document() for each in self.arguments}} if self.arguments else {})

    def apply_to(self, tool: Mapping[str, Any]) -> dict[str, Any]:
        """The tool's definition as clients see it."""
        texts = {name: getattr(self, name) for name in TEXTS if getattr(self, name)}
        schema = tool.get("inputSchema")
        shown = {"inputSchema": self._shown_schema(schema)} if self.arguments and isinstance(schema, Mapping) else {}
        return {**tool, **texts, **shown}

    def to_server_arguments(self, client_arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments for the server. Raises BadOverride for an argument that clients do not have."""
        known = {each.client_name: each for each in self.arguments if not each.value}
        hidden = {each.server_name for each in self.arguments if each.value or each.client_name != each.server_name} - known.keys()
        if unknown := sorted(hidden & client_arguments.keys()):
            raise BadOverride(f"arguments.{unknown[0]}", "is not an argument of this tool")
        sent = {known[name].server_name if name in known else name: value for name, value in client_arguments.items()}
        for each in self.arguments:
            if each.value:
                sent[each.server_name] = json.loads(each.value)
            elif each.default:
                sent.setdefault(each.server_name, json.loads(each.default))
        return sent

    def _shown_schema(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """The schema for clients: without arguments that have a value; arguments with a default are not required."""
        own = schema.get("properties")
        properties = dict(own) if isinstance(own, Mapping) else {}
        required = [name for name in schema.get("required") or () if isinstance(name, str)]
        by_name = {each.server_name: each for each in self.arguments}
        shown: dict[str, Any] = {}
        for name, property_ in properties.items():
            each = by_name.get(name)
            if each is None:
                shown[name] = property_
            elif not each.value:
                shown[each.client_name] = _shown_property(each, property_)
        needed = [
            by_name[name].client_name if name in by_name else name
            for name in required
            if not (name in by_name and _is_given(by_name[name]))
        ]
        return {**schema, "properties": shown} | ({"required": needed} if required else {})


def _is_given(argument: ArgumentOverride | None) -> bool:
    """Whether the server gets a value in any case."""
    return argument is not None and bool(argument.value or argument.default)


def _shown_property(argument: ArgumentOverride, schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    overridden: dict[str, Any] = {"description": argument.description} if argument.description else {}
    return {**schema, **overridden, **({"default": json.loads(argument.default)} if argument.default else {})}


def _parse_argument(own: Any, document: Any) -> ArgumentOverride:
    """Reads one argument. Raises BadOverride."""
    where = f"arguments.{str(own)[:NAME_MAX]}"
    if not isinstance(own, str) or not own or len(own) > NAME_MAX or not isinstance(document, Mapping) or document.keys() - MEMBERS:
        raise BadOverride(where, f"must be a mapping with some of: {', '.join(sorted(MEMBERS))}")
    shown, description = document.get("name", own), document.get("description", "")
    if not isinstance(shown, str) or not 0 < len(shown) <= NAME_MAX or not shown.isprintable():
        raise BadOverride(f"{where}.name", f"must be 1 to {NAME_MAX} printable characters")
    if not isinstance(description, str) or len(description) > TEXT_MAX:
        raise BadOverride(f"{where}.description", f"must be a text of at most {TEXT_MAX} characters")
    if "value" in document and document.keys() != {"value"}:
        raise BadOverride(where, "has a value, so clients do not see it; remove its other members")
    texts = {name: json.dumps(document[name]) if name in document else "" for name in ("default", "value")}
    if any(len(text) > TEXT_MAX for text in texts.values()):
        raise BadOverride(where, f"has a value of more than {TEXT_MAX} bytes")
    return ArgumentOverride(own, shown, description, **texts)
