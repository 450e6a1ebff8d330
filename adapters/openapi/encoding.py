"""Encodes the arguments of an HTTP operation by place and style (OpenAPI 3.1 s4.8.12): path, query, header, cookie and body."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from adapters.openapi.multipart import MULTIPART, BadArguments, BodyContent, FormField, encode_form, file_content
from policies.cedar.json_types import DeclaredTypes

STYLES: Final = {"path": "simple", "query": "form", "header": "simple", "cookie": "form"}
RESERVED_HEADERS: Final = frozenset(  # headers that no argument may set: addressing, connection, content and credentials
    {"accept", "content-type", "authorization", "host", "cookie", "connection", "content-length", "transfer-encoding", "te", "upgrade"}
)
_HEADER_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_DELIMITERS: Final = {"form": ",", "spaceDelimited": "%20", "pipeDelimited": "%7C"}
_JSON: Final = re.compile(r"application/(?:[\w.+-]+\+)?json")
_TEXT: Final = re.compile(r"text/[\w.+-]+")
URLENCODED: Final = "application/x-www-form-urlencoded"


class Parameter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A parameter of an operation. `argument` is its name in the tool. `media`: its value is encoded in that media type."""

    argument: str
    name: str
    place: str  # path | query | header | cookie
    required: bool = False
    style: str = ""
    explode: bool | None = None
    media: str = ""


class Operation(msgspec.Struct, frozen=True, omit_defaults=True):
    """An operation. `body` is the media type of the argument `body_argument`; empty without a body. `fields`: the known members of a form.

    `schema` is the tool's inputSchema, which is pinned beside the operation and not repeated in it.
    """

    method: str
    path: str
    parameters: tuple[Parameter, ...] = ()
    body: str = ""
    body_argument: str = ""
    body_required: bool = False
    fields: tuple[FormField, ...] = ()
    schema: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class HttpCall:
    """An encoded request. `url` is the path and query below the API's base URL."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None


def is_usable(parameter: Parameter) -> bool:
    """Whether an argument may set this parameter."""
    if parameter.place == "header":
        name = parameter.name.lower()
        return (
            bool(_HEADER_TOKEN.fullmatch(name))
            and name not in RESERVED_HEADERS
            and not name.startswith(("proxy-", "interlock-", "mcp-", "sec-"))
        )
    return parameter.place != "cookie" or bool(_HEADER_TOKEN.fullmatch(parameter.name))


def encode_call(operation: Operation, arguments: Mapping[str, Any]) -> HttpCall:
    """Encodes a call. Raises BadArguments."""
    known = {parameter.argument for parameter in operation.parameters} | ({operation.body_argument} if operation.body else set())
    if unknown := sorted(arguments.keys() - known):
        raise BadArguments(f"there is no argument {unknown[0][:64]!r}")
    arguments = {name: value for name, value in arguments.items() if value is not None}
    _check_types(operation, arguments)
    path, query = operation.path, []
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for parameter in operation.parameters:
        value = arguments.get(parameter.argument)
        if value is None:
            if parameter.required:
                raise BadArguments(f"the argument {parameter.argument!r} is missing")
        elif parameter.place == "path":
            path = path.replace("{" + parameter.name + "}", _path_segment(parameter, value))
        elif parameter.place == "query":
            query += _query_pairs(parameter, value)
        elif parameter.place == "header":
            headers[parameter.name.lower()] = _header_value(parameter, _simple_style(parameter, value, str))
        else:
            cookies += _query_pairs(parameter, value)
    if cookies:
        headers["cookie"] = "; ".join(cookies)
    body = _encode_body(operation, arguments)
    if body is not None:
        headers["content-type"] = body.media_type
    return HttpCall(operation.method, f"{path}?{'&'.join(query)}" if query else path, headers, body.body if body else None)


def _check_types(operation: Operation, arguments: Mapping[str, Any]) -> None:
    """Raises BadArguments for a parameter, form or text of another type than declared, which would be encoded differently.

    A list instead of a text would look the same upstream, but not to the policies; an object would become several parameters.
    """
    declared = operation.schema.get("properties")
    schemas = declared if isinstance(declared, Mapping) else {}
    plain, json_values = DeclaredTypes(operation.schema, plain_by_default=True), DeclaredTypes(operation.schema)
    for parameter in operation.parameters:
        if parameter.argument in arguments:
            value, schema = arguments[parameter.argument], schemas.get(parameter.argument, True)
            _check(json_values if parameter.media else plain, schema, parameter.argument, value)
            if isinstance(value, dict) and not parameter.media:
                _check_explosion(operation, parameter, value, plain.members(schema).keys())
    body = arguments.get(operation.body_argument)
    if body is not None and operation.body and not (is_json(operation.body) or is_file(operation.body)):
        _check_body(operation, plain, schemas.get(operation.body_argument, True), body)


def _check_explosion(operation: Operation, parameter: Parameter, value: Mapping[str, Any], named: AbstractSet[str]) -> None:
    """Raises BadArguments for an object's member that would be encoded as an undeclared parameter, or as another one."""
    style = parameter.style or STYLES[parameter.place]
    taken = {other.name for other in operation.parameters if other.place == parameter.place}
    if style == "deepObject":
        bracketed = {key for key in value if f"{parameter.name}[{key}]" in taken or not {"[", "]"}.isdisjoint(key)}
        _check_members(parameter.argument, value, (named or value.keys()) - bracketed)
    elif parameter.explode if parameter.explode is not None else style == "form":
        _check_members(parameter.argument, value, named - taken)


def _check_body(operation: Operation, types: DeclaredTypes, schema: Any, body: Any) -> None:
    """Checks a form or text body. Members of a form without declared members must be plain, or fit `additionalProperties`."""
    argument = operation.body_argument
    if operation.body in (URLENCODED, MULTIPART):
        named = types.members(schema)
        if isinstance(body, dict):
            files = {field.name for field in operation.fields if field.file}
            body = {name: {"text": item} if name in files and isinstance(item, str) else item for name, item in body.items()}
            if named:
                _check_members(argument, {name: item for name, item in body.items() if item is not None}, named.keys())
        if not named:
            others = schema.get("additionalProperties") if isinstance(schema, Mapping) else None
            schema = {"type": "object", "additionalProperties": others if isinstance(others, Mapping) else {}}
    _check(types, schema, argument, body)


def _check(types: DeclaredTypes, schema: Any, argument: str, value: Any) -> None:
    found = types.mismatch(value, schema=schema)
    if found is not None:
        raise BadArguments(f"the argument {'.'.join((argument, *found.path))[:200]!r} has the wrong type: {found.problem}")


def _check_members(argument: str, value: Mapping[str, Any], named: Collection[str]) -> None:
    """Raises BadArguments for a member that would become a parameter or form field that the document does not declare."""
    if unknown := sorted(value.keys() - named):
        raise BadArguments(f"the argument {argument!r} must not have the member {unknown[0][:64]!r}")


def _path_segment(parameter: Parameter, value: Any) -> str:
    """A value as path segment, which can't change the path. Raises BadArguments."""
    style = parameter.style or STYLES["path"]
    if parameter.media or style == "simple":
        text = _simple_style(parameter, value, _percent_encode)
    elif style == "label":
        text = "." + _simple_style(parameter, value, _percent_encode, "." if parameter.explode else ",")
    else:
        text = _matrix_style(parameter, value)
    if text in ("", ".", "..") or not text.strip("."):
        raise BadArguments(f"the argument {parameter.argument!r} can't be part of a path")
    return text


def _matrix_style(parameter: Parameter, value: Any) -> str:
    name = _percent_encode(parameter.name)
    if parameter.explode and isinstance(value, list):
        return "".join(f";{name}={_percent_encode(_text_of(item))}" for item in value)
    if parameter.explode and isinstance(value, dict):
        return "".join(f";{_percent_encode(key)}={_percent_encode(_text_of(item))}" for key, item in value.items())
    return f";{name}={_simple_style(parameter, value, _percent_encode)}"


def _simple_style(parameter: Parameter, value: Any, encode_text: Any, delimiter: str = ",") -> str:
    """`a,b` for a list, `k,v` or `k=v` for an object."""
    if parameter.media:
        return str(encode_text(_json_text(value)))
    if isinstance(value, list):
        return delimiter.join(encode_text(_text_of(item)) for item in value)
    if isinstance(value, dict):
        between = "=" if parameter.explode else ","
        return delimiter.join(f"{encode_text(key)}{between}{encode_text(_text_of(item))}" for key, item in value.items())
    return str(encode_text(_text_of(value)))


def _query_pairs(parameter: Parameter, value: Any) -> list[str]:
    name = _percent_encode(parameter.name)
    if parameter.media:
        return [f"{name}={_percent_encode(_json_text(value))}"]
    style = parameter.style or "form"
    explode = parameter.explode if parameter.explode is not None else style == "form"
    if isinstance(value, dict):
        return list(_object_pairs(name, value, style, explode))
    if isinstance(value, list):
        items = [_percent_encode(_text_of(item)) for item in value]
        return [f"{name}={item}" for item in items] if explode else [f"{name}={_DELIMITERS.get(style, ',').join(items)}"]
    return [f"{name}={_percent_encode(_text_of(value))}"]


def _object_pairs(name: str, value: Mapping[str, Any], style: str, explode: bool) -> Iterator[str]:
    pairs = [(_percent_encode(key), _percent_encode(_text_of(item))) for key, item in value.items()]
    if style == "deepObject":
        yield from (f"{name}%5B{key}%5D={item}" for key, item in pairs)
    elif explode:
        yield from (f"{key}={item}" for key, item in pairs)
    else:
        yield f"{name}={_DELIMITERS.get(style, ',').join(text for pair in pairs for text in pair)}"


def is_json(media: str) -> bool:
    return _JSON.fullmatch(media) is not None


def is_file(media: str) -> bool:
    """Whether a body of this media type is a single file."""
    return not (media in (URLENCODED, MULTIPART) or is_json(media) or _TEXT.fullmatch(media))


def _encode_body(operation: Operation, arguments: Mapping[str, Any]) -> BodyContent | None:
    """The body; None if the operation has none or it is omitted. Raises BadArguments."""
    argument, media = operation.body_argument, operation.body
    if not media or arguments.get(argument) is None:
        if operation.body_required:
            raise BadArguments(f"the argument {argument!r} is missing")
        return None
    value = arguments[argument]
    if media == MULTIPART:
        return encode_form(argument, value, operation.fields, _text_of)
    if is_file(media):
        return file_content(argument, value, media)
    if media == URLENCODED:
        if not isinstance(value, dict):
            raise BadArguments(f"the argument {argument!r} must be an object")
        pairs = [(key, _text_of(each)) for key, item in value.items() if item is not None for each in _as_list(item)]
        return BodyContent(urlencode(pairs).encode(), media)
    return BodyContent((_text_of(value) if media.startswith("text/") else _json_text(value)).encode(), media)


def _as_list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


def _header_value(parameter: Parameter, text: str) -> str:
    if not text.isprintable() or not text.isascii():
        raise BadArguments(f"the argument {parameter.argument!r} can't be part of a header")
    return text


def _text_of(value: Any) -> str:
    """A scalar as text; anything else as JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    return value if isinstance(value, str) else _json_text(value)


def _json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _percent_encode(text: str) -> str:
    return quote(text, safe="")
