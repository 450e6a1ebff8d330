"""`call: http`: which operation of which registered HTTP API a request is, and its parts as the arguments of that operation's tool."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from msgspec import Struct

from adapters.contract import UpstreamFault
from adapters.openapi.document import operation_of
from adapters.openapi.encoding import Operation
from adapters.openapi.tools import OPENAPI_KIND
from gateway.workflows.dsl.targets import TOOLS
from gateway.workflows.expressions.templates import expression_in
from registry.cards.card import Registration

UNKNOWN_UNTIL_RUN: Final = "is only known when the step runs; write it out, with {names} of input members in its path"
NOT_REGISTERED: Final = "is no operation of a registered HTTP API; register the API by its OpenAPI document (docs/mcp.md#openapi)"
_PARAMETER: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PORTS: Final = {"http": 80, "https": 443}
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {"integer": (int,), "number": (int, float), "boolean": (bool,)}


class OperationTarget(Struct, frozen=True):
    """The operation that a request is. `arguments`: those that its URI gives, with {names} of input members in them."""

    server: str
    tool: str
    operation: Operation
    arguments: Mapping[str, str]


class NoOperation(Exception):
    """A request is no operation that can be called; the text says why."""


def find_target(servers: Iterable[Registration], method: str, uri: str) -> OperationTarget:
    """The operation of a method and a URI, `interlock://tools/NAME/PATH` or below the address of an API. Raises NoOperation."""
    if expression_in(uri) is not None:
        raise NoOperation(UNKNOWN_UNTIL_RUN)
    found: list[tuple[int, OperationTarget]] = []
    for entry in servers:
        if entry.kind == OPENAPI_KIND and (path := _path_at(entry, uri)) is not None:
            found += _operations(entry, method.upper(), path)
    if not found:
        raise NoOperation(NOT_REGISTERED)
    target = max(found, key=lambda each: each[0])[1]
    named = {each.name: each.argument for each in target.operation.parameters if each.place == "query"}
    given = parse_qsl(uri.partition("#")[0].partition("?")[2], keep_blank_values=True)
    for name, _ in given:
        if name not in named:
            raise NoOperation(f"has `{name}` in its query, which the operation `{target.server}.{target.tool}` does not know")
    more = {named[name]: value for name, value in given}
    return msgspec.structs.replace(target, arguments={**target.arguments, **more})


def _path_at(entry: Registration, uri: str) -> str | None:
    """The path below the address of an API, or None for a URI of another one."""
    plain = uri.partition("#")[0].partition("?")[0]
    if plain.startswith(TOOLS):
        name, slash, path = plain.removeprefix(TOOLS).partition("/")
        return f"/{path}" if slash and name == entry.name else None
    try:
        given, base = urlsplit(plain), urlsplit(entry.url.rstrip("/"))
        if _origin(given.scheme, given.hostname, given.port) != _origin(base.scheme, base.hostname, base.port):
            return None
    except ValueError:  # an address that is none
        return None
    return given.path.removeprefix(base.path) if given.path.startswith(f"{base.path}/") else None


def _origin(scheme: str, host: str | None, port: int | None) -> tuple[str, str, int | None]:
    return scheme.lower(), (host or "").lower(), port or _PORTS.get(scheme.lower())


def _operations(entry: Registration, method: str, path: str) -> Iterator[tuple[int, OperationTarget]]:
    """The operations of an API whose path fits, with the number of its steps that are the same."""
    for tool in entry.tools:
        try:
            operation = operation_of(tool.definition)
        except UpstreamFault:
            continue
        if operation.method == method and (fit := _fit(operation, path)) is not None:
            yield fit[0], OperationTarget(entry.name, tool.name, operation, fit[1])


def _fit(operation: Operation, path: str) -> tuple[int, dict[str, str]] | None:
    """How many steps of a path are those of an operation, and the arguments in the others; None where it is another path."""
    wanted, given = operation.path.split("/"), path.split("/")
    if len(wanted) != len(given):
        return None
    named = {f"{{{each.name}}}": each.argument for each in operation.parameters if each.place == "path"}
    same, arguments = 0, {}
    for step, value in zip(wanted, given, strict=True):
        if step in named and value:
            arguments[named[step]] = unquote(value)
        elif step == value:
            same += 1
        else:
            return None
    return same, arguments


def arguments_of(target: OperationTarget, given: Mapping[str, Any], data: Any) -> dict[str, Any]:
    """The arguments of the tool: of the URI with the members of the input, of `query`, `headers` and `body`. Raises NoOperation."""
    schema = target.operation.schema.get("properties", {})
    filled = {name: _typed(schema.get(name), _filled(text, data)) for name, text in target.arguments.items()}
    for place, members in (("query", given.get("query")), ("header", given.get("headers"))):
        for name, value in (members or {}).items():
            argument = _argument_named(target.operation, place, name)
            if argument is None:
                raise NoOperation(f"has `{name}` in its {place}, which the operation `{target.server}.{target.tool}` does not know")
            filled[argument] = _typed(schema.get(argument), value)
    if given.get("body") is not None:
        if not target.operation.body:
            raise NoOperation(f"has a body, which the operation `{target.server}.{target.tool}` does not know")
        filled[target.operation.body_argument] = given["body"]
    return filled


def _argument_named(operation: Operation, place: str, name: str) -> str | None:
    same = name.lower() if place == "header" else name
    for each in operation.parameters:
        if each.place == place and (each.name.lower() if place == "header" else each.name) == same:
            return each.argument
    return None


def _filled(text: str, data: Any) -> Any:
    """A text with members of the input. A member that is the whole text keeps its type. Raises NoOperation where one is missing."""
    members = data if isinstance(data, Mapping) else {}
    for name in _PARAMETER.findall(text):
        if members.get(name) is None:
            raise NoOperation(f"names `{name}`, which the input lacks")
    if (whole := _PARAMETER.fullmatch(text)) is not None:
        return members[whole[1]]
    return _PARAMETER.sub(lambda match: str(members[match[1]]), text)


def _typed(schema: Any, value: Any) -> Any:
    """A text as the number or truth value that the schema of an argument asks for, where it is one."""
    wanted = _TYPES.get(str(schema.get("type"))) if isinstance(schema, Mapping) else None
    if wanted is None or not isinstance(value, str) or len(value) > 100:
        return value
    try:
        read = msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value
    return read if type(read) in wanted else value
