"""Reads an OpenAPI document as tools: one for each operation, with arguments for its parameters and body."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urljoin

import msgspec

from adapters.contract import UpstreamFault
from adapters.openapi.bodies import OperationBody, UnsupportedBody, read_body
from adapters.openapi.encoding import STYLES, Operation, Parameter, is_usable
from adapters.openapi.schema import SchemaReader, UnusableSchema, definition_key

OPERATION_KEY: Final = "dev.interlock/operation"  # in the `_meta` of a tool: how to encode a call, pinned with the definition
METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")
OPERATIONS_MAX: Final = 2000
SCHEMA_MAX: Final = 64 << 10  # bytes of one tool's definition
PROSE_MAX: Final = 4000  # characters of one description
STEPS_MAX: Final = 5_000_000  # of reading one document: a small one could be made to take forever
URL_MAX: Final = 2048  # characters of the server's URL
IGNORED_HEADERS: Final = frozenset({"accept", "content-type", "authorization"})  # as header parameters (OpenAPI 3.1 s4.8.12.1)
_NAME_SEPARATORS: Final = re.compile(r"[^A-Za-z0-9_.-]+")
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ApiTools:
    """The tools of an API. `base` is its URL without a trailing slash; empty if the document has none.

    `left_out`: unusable operations by name, each with the reason. `digest` is that of the document's text, where it was read.
    """

    base: str
    version: str
    tools: list[dict[str, Any]]
    left_out: list[tuple[str, str]] = field(default_factory=list)
    digest: str = ""


class _NotATool(Exception):
    """An operation can't be a tool. The text says why."""


def read_api(document: Any, source: str = "") -> ApiTools:
    """Reads a parsed document; leaves out unusable operations. Raises UpstreamFault unless it is OpenAPI 3.0 or 3.1."""
    version = document.get("openapi") if isinstance(document, dict) else None
    if not isinstance(version, str) or not version.startswith(("3.0.", "3.1.")) or not isinstance(document.get("paths"), dict):
        raise UpstreamFault("The document is not OpenAPI 3.0 or 3.1")
    reader = _DocumentReader(document, version)
    tools: dict[str, dict[str, Any]] = {}
    left_out: list[tuple[str, str]] = []
    for path, method, operation in reader.iterate_operations():
        try:
            tool = reader.build_tool(method, path, operation)
        except (_NotATool, UnusableSchema, UnsupportedBody) as error:
            left_out.append((f"{method.upper()} {path}"[:200], str(error)))
            continue
        name = tool["name"] if tool["name"] not in tools else _distinct_name(tool["name"], f"{method} {path}")
        tools[name] = {**tool, "name": name}
    if len(tools) > OPERATIONS_MAX:
        raise UpstreamFault("The document has too many operations", f"{len(tools)}, at most {OPERATIONS_MAX} are allowed")
    return ApiTools(_base_url(document, source), version, list(tools.values()), left_out)


def operation_of(definition: Json) -> Operation:
    """The operation in a tool's definition. Raises UpstreamFault."""
    try:
        operation = msgspec.convert(definition["_meta"][OPERATION_KEY], Operation)
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise UpstreamFault("The tool has no valid description of its operation", str(error)[:200]) from None
    schema = definition.get("inputSchema")
    return msgspec.structs.replace(operation, schema=schema if isinstance(schema, dict) else {})


def _base_url(document: Json, source: str) -> str:
    """The URL of the first server with the defaults of its variables, relative to the document's URL."""
    servers = document.get("servers")
    first = servers[0] if isinstance(servers, list) and servers and isinstance(servers[0], dict) else {}
    url = str(first.get("url", "/"))[:URL_MAX]
    variables = first.get("variables")
    for name, variable in (
        variables.items() if isinstance(variables, dict) else ()
    ):  # defaults that name other variables could grow without end
        default = str(variable.get("default", ""))[:URL_MAX] if isinstance(variable, dict) else ""
        url = url.replace("{" + str(name) + "}", default)[:URL_MAX]
    joined = urljoin(source, url) if source else url
    return joined.rstrip("/") if joined.startswith(("http://", "https://")) else ""


class _DocumentReader:
    """Reads one document, whose references may only lead into it. Raises UpstreamFault if that takes too many steps."""

    def __init__(self, document: Json, version: str) -> None:
        self._document = document
        self._steps_left = STEPS_MAX
        self._schemas = SchemaReader(self._resolve_pointer, self._count_steps, siblings=version.startswith("3.1."))

    def iterate_operations(self) -> Iterator[tuple[str, str, Json]]:
        """Yields the path, method and object of each operation."""
        for path, path_item in self._document["paths"].items():
            item = self.resolve(path_item) if isinstance(path, str) and path.startswith("/") else {}
            for method in METHODS:
                if isinstance(item.get(method), dict):
                    yield path, method, item[method]

    def _count_steps(self, steps: int) -> None:
        self._steps_left -= steps
        if self._steps_left < 0:
            raise UpstreamFault("The document is too complicated", f"more than {STEPS_MAX} steps")

    def resolve(self, node: Any) -> Json:
        """The object, or the one that it refers to; empty for anything else."""
        for _ in range(10):
            self._count_steps(1)
            if not isinstance(node, dict):
                return {}
            reference = node.get("$ref")
            if not isinstance(reference, str):
                return node
            node = self._resolve_pointer(reference)
        return {}

    def _resolve_pointer(self, reference: str) -> Any:
        """The target of a reference; None for one outside of the document."""
        self._count_steps(1 + len(reference) // 8)
        node: Any = self._document if reference.startswith("#/") else None
        for step in reference[2:].split("/"):
            node = node.get(definition_key(step)) if isinstance(node, dict) else None
        return node

    def build_tool(self, method: str, path: str, operation: Json) -> dict[str, Any]:
        """The definition of a tool. Raises _NotATool, UnusableSchema and UnsupportedBody."""
        parameters = list(self._read_parameters(path, operation))
        for parameter, _ in parameters:
            if parameter.required and not is_usable(parameter):
                raise _NotATool(f"it needs the {parameter.place} parameter {parameter.name[:100]}, which no argument may set")
        parameters = [each for each in parameters if is_usable(each[0])]
        properties = {parameter.argument: schema for parameter, schema in parameters}
        required = [parameter.argument for parameter, _ in parameters if parameter.required]
        request_body = self.resolve(operation.get("requestBody"))
        body = self._read_body(request_body)
        argument = ("body" if "body" not in properties else "request_body") if body.media else ""
        if body.media:
            properties[argument] = _with_description(request_body, body.schema)
            required += [argument] if body.required else []
        sent = tuple(each for each, _ in parameters)
        called = Operation(method.upper(), path, sent, body.media, argument, body.required, body.fields)
        schema = self._self_contained_schema(
            {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        )
        tool = self._tool_members(operation, called) | {"inputSchema": schema}
        if len(msgspec.json.encode(tool)) > SCHEMA_MAX:
            raise _NotATool(f"its definition is larger than {SCHEMA_MAX} bytes")
        return tool

    def _tool_members(self, operation: Json, called: Operation) -> dict[str, Any]:
        operation_id = operation.get("operationId")
        name = _NAME_SEPARATORS.sub(
            "_", operation_id[:256] if isinstance(operation_id, str) and operation_id else f"{called.method.lower()}_{called.path}"
        ).strip("_")[:64]
        prose = [text[:PROSE_MAX] for text in (operation.get("summary"), operation.get("description")) if isinstance(text, str) and text]
        hints = {"readOnlyHint": called.method in ("GET", "HEAD", "OPTIONS"), "destructiveHint": called.method == "DELETE"}
        return {
            "name": name or _distinct_name("operation", called.path),
            "description": ("\n".join(prose) or f"{called.method} {called.path}")[:PROSE_MAX],
            "annotations": {**hints, "idempotentHint": called.method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")},
            "_meta": {OPERATION_KEY: msgspec.to_builtins(called)},
        }

    def _read_parameters(self, path: str, operation: Json) -> Iterator[tuple[Parameter, Any]]:
        """Yields the parameters of an operation and its path, each with a unique argument name and its schema."""
        item = self.resolve(self._document["paths"][path])
        found: dict[tuple[str, str], Json] = {}
        for each in (*_list_or_empty(item.get("parameters")), *_list_or_empty(operation.get("parameters"))):
            parameter = self.resolve(each)
            name, place = parameter.get("name"), parameter.get("in")
            self._count_steps(len(str(name)) // 16)
            if isinstance(name, str) and place in STYLES and not (place == "header" and name.lower() in IGNORED_HEADERS):
                found[name, str(place)] = parameter
        taken: set[str] = set()
        for (name, place), parameter in found.items():
            argument = name if name not in taken else f"{name}_{place}"
            taken.add(argument)
            yield self._read_parameter(argument, name, place, parameter)

    def _read_parameter(self, argument: str, name: str, place: str, declared: Json) -> tuple[Parameter, Any]:
        content = declared.get("content")
        media = next(iter(content), "") if isinstance(content, dict) else ""
        schema = self.resolve(content[media]).get("schema", {}) if media and isinstance(content, dict) else declared.get("schema", {})
        style, explode = declared.get("style"), declared.get("explode")
        required = declared.get("required") is True or place == "path"
        made = Parameter(
            argument, name, place, required, style if isinstance(style, str) else "", explode if isinstance(explode, bool) else None, media
        )
        return made, _with_description(declared, schema)

    def _read_body(self, request_body: Json) -> OperationBody:
        """The body of an operation. Raises UnsupportedBody."""
        content = request_body.get("content")
        self._count_steps(len(content) if isinstance(content, dict) else 1)
        return read_body(request_body, self.resolve)

    def _self_contained_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """The schema with the referenced components under `$defs`. Raises UnusableSchema, and _NotATool if it is too large."""
        definitions: dict[str, Any] = {}
        made, wanted, size = self._schemas.rewrite(schema)
        while wanted:
            name, *wanted = wanted
            key = definition_key(name)
            if key not in definitions:
                definitions[key], more, bytes_more = self._schemas.rewrite_component(name)
                wanted, size = [*more, *wanted], size + bytes_more
            if size > SCHEMA_MAX:
                raise _NotATool(f"its schema is larger than {SCHEMA_MAX} bytes")
        return {**made, "$defs": definitions} if definitions else dict(made)


def _with_description(declared: Json, schema: Any) -> Any:
    text = declared.get("description")
    if isinstance(text, str) and text and isinstance(schema, dict) and "description" not in schema and "$ref" not in schema:
        return {**schema, "description": text[:PROSE_MAX]}
    return schema if isinstance(schema, dict) else {}


def _distinct_name(name: str, source: str) -> str:
    return f"{name[:55]}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def _list_or_empty(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
