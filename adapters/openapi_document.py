"""An OpenAPI document as the tools of a server: each operation one, with the arguments of its parameters and its body."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urljoin

import msgspec

from adapters.contract import UpstreamFault
from adapters.openapi_encoding import STYLES, Operation, Parameter, usable

META: Final = "dev.interlock/operation"  # in the `_meta` of a tool: how a call of it is encoded, pinned with all else
METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")
OPERATIONS_MAX: Final = 2000
SCHEMA_MAX: Final = 64 << 10  # bytes of one tool's definition
PROSE_MAX: Final = 4000  # characters of one description
DEPTH_MAX: Final = 64
STEPS_MAX: Final = 2_000_000  # of reading one document: a small one can be made to take for ever
URL_MAX: Final = 2048  # characters of its server's address
IGNORED: Final = frozenset({"accept", "content-type", "authorization"})  # as header parameters (OpenAPI 3.1 s4.8.12.1)
COMPONENTS: Final = "#/components/schemas/"
BODIES: Final = re.compile(r"application/(?:[\w.+-]+\+)?json|application/x-www-form-urlencoded|text/[\w.+-]+")
_ODD: Final = re.compile(r"[^A-Za-z0-9_.-]+")
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Api:
    """`base` is where it is called, without a slash at its end; empty where the document does not say."""

    base: str
    version: str
    tools: list[dict[str, Any]]


def read_api(document: Any, source: str = "") -> Api:
    """Raises UpstreamFault for what is no OpenAPI 3 document. Operations that can't be called with arguments are left out."""
    version = document.get("openapi") if isinstance(document, dict) else None
    if not isinstance(version, str) or not version.startswith(("3.0.", "3.1.")) or not isinstance(document.get("paths"), dict):
        raise UpstreamFault("The document is not OpenAPI 3.0 or 3.1")
    reader = _Reader(document)
    tools: dict[str, dict[str, Any]] = {}
    for path, given in document["paths"].items():
        item = reader.resolved(given) if isinstance(path, str) and path.startswith("/") else {}
        for method in METHODS:
            operation = item.get(method)
            tool = reader.tool(method, path, operation) if isinstance(operation, dict) else None
            if tool is not None:
                name = tool["name"] if tool["name"] not in tools else _distinct(tool["name"], f"{method} {path}")
                tools[name] = {**tool, "name": name}
    if len(tools) > OPERATIONS_MAX:
        raise UpstreamFault("The document has too many operations", f"{len(tools)}")
    return Api(_base(document, source), version, list(tools.values()))


def operation_of(definition: Json) -> Operation:
    """Raises UpstreamFault."""
    try:
        return msgspec.convert(definition["_meta"][META], Operation)
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise UpstreamFault("The tool says not how it is called", str(error)[:200]) from None


def _base(document: Json, source: str) -> str:
    """The first server, with the defaults of its variables; relative to where the document is."""
    servers = document.get("servers")
    first = servers[0] if isinstance(servers, list) and servers and isinstance(servers[0], dict) else {}
    url = str(first.get("url", "/"))[:URL_MAX]
    variables = first.get("variables")
    for name, variable in variables.items() if isinstance(variables, dict) else ():  # one whose default names others would grow and grow
        default = str(variable.get("default", ""))[:URL_MAX] if isinstance(variable, dict) else ""
        url = url.replace("{" + str(name) + "}", default)[:URL_MAX]
    joined = urljoin(source, url) if source else url
    return joined.rstrip("/") if joined.startswith(("http://", "https://")) else ""


class _Reader:
    """One document; references lead nowhere but into it. Raises UpstreamFault for one that takes too long to read."""

    def __init__(self, document: Json) -> None:
        self._document = document
        self._left = STEPS_MAX
        self._schemas: dict[str, tuple[Any, list[str], int]] = {}  # each rewritten once: it, what it refers to, and its size

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise UpstreamFault("The document is too complicated", f"more than {STEPS_MAX} steps")

    def resolved(self, node: Any) -> Json:
        """The object that a reference means, or the object itself; an empty one for what is neither."""
        for _ in range(10):
            self._spend(1)
            if not isinstance(node, dict):
                return {}
            reference = node.get("$ref")
            if not isinstance(reference, str):
                return node
            node = self._at(reference)
        return {}

    def _at(self, reference: str) -> Any:
        """What a reference means; nothing for one that leads out of the document."""
        self._spend(1 + len(reference) // 8)
        node: Any = self._document if reference.startswith("#/") else None
        for step in reference[2:].split("/"):
            node = node.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(node, dict) else None
        return node

    def tool(self, method: str, path: str, operation: Json) -> dict[str, Any] | None:
        """Its definition; None for an operation that needs what can't be sent."""
        parameters = list(self._parameters(path, operation))
        if any(each[0].required and not usable(each[0]) for each in parameters):
            return None
        parameters = [each for each in parameters if usable(each[0])]
        media, body = self._body(operation)
        if media is None:
            return None
        properties = {parameter.argument: schema for parameter, schema in parameters}
        argument = "body" if "body" not in properties else "request_body"
        sent = tuple(each for each, _ in parameters)
        called = Operation(method.upper(), path, sent, media, argument if media else "", body.get("required") is True)
        required = [parameter.argument for parameter, _ in parameters if parameter.required]
        if media:
            properties[argument] = _described(body, self.resolved(body.get("content", {}).get(media)).get("schema", {}))
            required += [argument] if called.body_required else []
        schema = self._schema({"type": "object", "properties": properties, "required": required, "additionalProperties": False})
        tool = self._described_tool(operation, called) | {"inputSchema": schema}
        return tool if schema is not None and len(msgspec.json.encode(tool)) <= SCHEMA_MAX else None

    def _described_tool(self, operation: Json, called: Operation) -> dict[str, Any]:
        given = operation.get("operationId")
        name = _ODD.sub("_", given[:256] if isinstance(given, str) and given else f"{called.method.lower()}_{called.path}").strip("_")[:64]
        prose = [text[:PROSE_MAX] for text in (operation.get("summary"), operation.get("description")) if isinstance(text, str) and text]
        hints = {"readOnlyHint": called.method in ("GET", "HEAD", "OPTIONS"), "destructiveHint": called.method == "DELETE"}
        return {
            "name": name or _distinct("operation", called.path),
            "description": ("\n".join(prose) or f"{called.method} {called.path}")[:PROSE_MAX],
            "annotations": {**hints, "idempotentHint": called.method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")},
            "_meta": {META: msgspec.to_builtins(called)},
        }

    def _parameters(self, path: str, operation: Json) -> Iterator[tuple[Parameter, Any]]:
        """Those of the operation, and those of its path that it does not replace; each under a name of its own."""
        item = self.resolved(self._document["paths"][path])
        found: dict[tuple[str, str], Json] = {}
        for each in (*_list(item.get("parameters")), *_list(operation.get("parameters"))):
            parameter = self.resolved(each)
            name, place = parameter.get("name"), parameter.get("in")
            self._spend(len(str(name)) // 16)
            if isinstance(name, str) and place in STYLES and not (place == "header" and name.lower() in IGNORED):
                found[name, str(place)] = parameter
        taken: set[str] = set()
        for (name, place), parameter in found.items():
            argument = name if name not in taken else f"{name}_{place}"
            taken.add(argument)
            yield self._parameter(argument, name, place, parameter)

    def _parameter(self, argument: str, name: str, place: str, given: Json) -> tuple[Parameter, Any]:
        content = given.get("content")
        media = next(iter(content), "") if isinstance(content, dict) else ""
        schema = self.resolved(content[media]).get("schema", {}) if media and isinstance(content, dict) else given.get("schema", {})
        style, explode = given.get("style"), given.get("explode")
        required = given.get("required") is True or place == "path"
        made = Parameter(
            argument, name, place, required, style if isinstance(style, str) else "", explode if isinstance(explode, bool) else None, media
        )
        return made, _described(given, schema)

    def _body(self, operation: Json) -> tuple[str | None, Json]:
        """Its media type (empty: there is none; None: one is needed and it is none of ours), and the request body."""
        body = self.resolved(operation.get("requestBody"))
        content = body.get("content")
        if not isinstance(content, dict) or not content:
            return "", {}
        self._spend(len(content))
        known = sorted((media for media in content if BODIES.fullmatch(media)), key=lambda media: "json" not in media)
        if known:
            return known[0], body
        return (None, body) if body.get("required") is True else ("", {})

    def _schema(self, schema: dict[str, Any]) -> dict[str, Any] | None:
        """With the schemas that it refers to under `$defs`; None where a reference leads out, or the schema is bottomless."""
        definitions: dict[str, Any] = {}
        try:
            made, wanted, size = self._rewritten(schema)
            while wanted:
                name, *wanted = wanted
                if name not in definitions:
                    definitions[name], more, bytes_more = self._component(name)
                    wanted, size = [*more, *wanted], size + bytes_more
                if size > SCHEMA_MAX:
                    return None
        except _Unusable:
            return None
        return {**made, "$defs": definitions} if definitions else dict(made)

    def _component(self, name: str) -> tuple[Any, list[str], int]:
        """Raises _Unusable."""
        self._spend(1)
        if name not in self._schemas:
            self._schemas[name] = self._rewritten(self._at(COMPONENTS + name))
        return self._schemas[name]

    def _rewritten(self, schema: Any) -> tuple[Any, list[str], int]:
        """The schema, the names of those that it refers to, each once, and its size in bytes. Raises _Unusable."""
        wanted: dict[str, None] = {}
        made = _rewritten(schema, wanted, 0, self._spend)
        return made, list(wanted), len(msgspec.json.encode(made))


class _Unusable(Exception):
    """A schema that can't be shown."""


def _rewritten(node: Any, wanted: dict[str, None], depth: int, spend: Callable[[int], None]) -> Any:
    """OpenAPI's dialect as JSON Schema 2020-12. `wanted` gets the names of the schemas that it refers to."""
    spend(1 + len(node) // 64 if isinstance(node, str) else 1)
    if depth > DEPTH_MAX:
        raise _Unusable
    if isinstance(node, list):
        return [_rewritten(each, wanted, depth + 1, spend) for each in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        if not reference.startswith(COMPONENTS):
            raise _Unusable
        name = reference.removeprefix(COMPONENTS)
        wanted[name] = None
        return {"$ref": f"#/$defs/{name}"}
    found = {
        key: _rewritten(value, wanted, depth + 1, spend)
        for key, value in node.items()
        if key not in ("nullable", "discriminator", "xml", "externalDocs", "example") and not str(key).startswith("x-")
    }
    if node.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found


def _described(given: Json, schema: Any) -> Any:
    text = given.get("description")
    if isinstance(text, str) and text and isinstance(schema, dict) and "description" not in schema and "$ref" not in schema:
        return {**schema, "description": text[:PROSE_MAX]}
    return schema if isinstance(schema, dict) else {}


def _distinct(name: str, what: str) -> str:
    return f"{name[:55]}-{hashlib.sha256(what.encode()).hexdigest()[:8]}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
