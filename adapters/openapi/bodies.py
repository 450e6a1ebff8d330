"""Request bodies of HTTP operations: selects a media type of the document, and the schema of its argument."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from adapters.openapi.encoding import URLENCODED, is_file, is_json
from adapters.openapi.multipart import FILE_SCHEMA, MULTIPART, OCTET_STREAM, FormField, is_media_type

Json = Mapping[str, Any]
Resolve = Callable[[Any], Json]
TEXT_ENCODINGS: Final = frozenset({"base64", "base64url"})  # encodings in which a file's bytes are text


class OperationBody(NamedTuple):
    """The body of an operation. `media` is empty without one. `schema` is the argument's, in the document's dialect."""

    media: str = ""
    schema: Any = None
    required: bool = False
    fields: tuple[FormField, ...] = ()


class UnsupportedBody(Exception):
    """The operation requires a body of an unsupported media type. The text names it."""


def read_body(request_body: Json, resolve: Resolve) -> OperationBody:
    """The body of a resolved request body object; `resolve` follows references. Raises UnsupportedBody."""
    content, required = request_body.get("content"), request_body.get("required") is True
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
    """The body in one media type of an operation; None if the gateway can't encode it."""
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
    """A form body; its file members get the schema of files."""
    properties, encoding = schema.get("properties"), form.get("encoding")
    if not isinstance(properties, dict):
        return OperationBody(MULTIPART, schema, required)
    shown: dict[str, Any] = {}
    fields: list[FormField] = []
    for name, property_schema in properties.items():
        field_encoding = encoding.get(name) if isinstance(encoding, dict) else None
        media = _single_media_type(field_encoding.get("contentType") if isinstance(field_encoding, dict) else None)
        each = resolve(property_schema)
        items = resolve(each.get("items")) if each.get("type") == "array" else None
        file = _is_file(each if items is None else items)
        if file:
            property_schema = FILE_SCHEMA if items is None else {"type": "array", "items": FILE_SCHEMA}
        if file or media:
            fields.append(FormField(str(name), media, file))
        shown[name] = property_schema
    return OperationBody(MULTIPART, {**schema, "properties": shown}, required, tuple(fields))


def _is_file(schema: Json) -> bool:
    """Whether a schema is of bytes: `format: binary` in OpenAPI 3.0, a media type without a text encoding in 3.1."""
    if schema.get("format") == "binary":
        return True
    return isinstance(schema.get("contentMediaType"), str) and schema.get("contentEncoding") not in TEXT_ENCODINGS


def _single_media_type(content_type: Any) -> str:
    """The single media type of an encoding object; empty for several or a range."""
    return content_type if isinstance(content_type, str) and is_media_type(content_type) else ""


def _preference(body: OperationBody) -> int:
    """The rank of a body: JSON first, forms with files before forms without, whole files last."""
    if is_json(body.media):
        return 0
    if body.media == MULTIPART:
        return 1 if any(field.file for field in body.fields) else 3
    if body.media == URLENCODED:
        return 2
    return 4 if is_file(body.media) else 2
