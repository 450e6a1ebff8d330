"""The body of an HTTP operation: which of the media types that a document offers is sent, and what the argument for it looks like."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from adapters.openapi.encoding import URLENCODED, is_file, is_json
from adapters.openapi.multipart import FILE_SCHEMA, MULTIPART, OCTET_STREAM, FormField, is_media_type

Json = Mapping[str, Any]
Resolve = Callable[[Any], Json]
TEXT_ENCODINGS: Final = frozenset({"base64", "base64url"})  # encodings by which the bytes of a file are a text


class OperationBody(NamedTuple):
    """`media` is empty where an operation has no body. `schema` is that of the argument, in the document's own dialect."""

    media: str = ""
    schema: Any = None
    required: bool = False
    fields: tuple[FormField, ...] = ()


class UnsupportedBody(Exception):
    """The operation needs a body of a media type that the gateway can't encode. The text names it."""


def read_body(given: Json, resolve: Resolve) -> OperationBody:
    """The body of a resolved request body object; `resolve` follows references. Raises UnknownBody."""
    content, required = given.get("content"), given.get("required") is True
    offered = (
        [_read_media_type(str(media), resolve(form), required, resolve) for media, form in content.items()]
        if isinstance(content, dict)
        else []
    )
    bodies = [body for body in offered if body is not None]
    if offered and required and not bodies:
        raise UnsupportedBody(f"it needs a body of the media type {next(iter(content or ''))[:100]}")
    return min(bodies, key=_preference) if bodies else OperationBody()


def _read_media_type(media: str, form: Json, required: bool, resolve: Resolve) -> OperationBody | None:
    """One of the media types that an operation takes; None where the gateway can't encode it."""
    schema = form.get("schema", {})
    kind = media.partition(";")[0].strip().lower()
    if kind == MULTIPART:
        return _read_form(form, resolve(schema), required, resolve)
    if not is_file(kind):
        return OperationBody(kind, schema, required)
    if kind.startswith("multipart/") or not (is_media_type(kind) or kind == "*/*"):
        return None
    return OperationBody(OCTET_STREAM if kind == "*/*" else kind, FILE_SCHEMA, required)


def _read_form(form: Json, schema: Json, required: bool, resolve: Resolve) -> OperationBody:
    """A form: its members that are files are shown as files."""
    properties, encoding = schema.get("properties"), form.get("encoding")
    if not isinstance(properties, dict):
        return OperationBody(MULTIPART, schema, required)
    shown: dict[str, Any] = {}
    fields: list[FormField] = []
    for name, given in properties.items():
        said = encoding.get(name) if isinstance(encoding, dict) else None
        media = _single_media_type(said.get("contentType") if isinstance(said, dict) else None)
        each = resolve(given)
        items = resolve(each.get("items")) if each.get("type") == "array" else None
        file = _is_file(each if items is None else items)
        if file:
            given = FILE_SCHEMA if items is None else {"type": "array", "items": FILE_SCHEMA}
        if file or media:
            fields.append(FormField(str(name), media, file))
        shown[name] = given
    return OperationBody(MULTIPART, {**schema, "properties": shown}, required, tuple(fields))


def _is_file(schema: Json) -> bool:
    """Bytes: `format: binary` in OpenAPI 3.0, a media type without a textual encoding in 3.1."""
    if schema.get("format") == "binary":
        return True
    return isinstance(schema.get("contentMediaType"), str) and schema.get("contentEncoding") not in TEXT_ENCODINGS


def _single_media_type(content_type: Any) -> str:
    """The one media type that an encoding object names; empty where it names several, or a range."""
    return content_type if isinstance(content_type, str) and is_media_type(content_type) else ""


def _preference(body: OperationBody) -> int:
    """JSON first; a form that carries files before one that can't; whole files last."""
    if is_json(body.media):
        return 0
    if body.media == MULTIPART:
        return 1 if any(field.file for field in body.fields) else 3
    if body.media == URLENCODED:
        return 2
    return 4 if is_file(body.media) else 2
