"""Files as arguments of HTTP operations: bodies of one file, and forms with files (multipart/form-data, RFC 7578)."""

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

MULTIPART: Final = "multipart/form-data"
OCTET_STREAM: Final = "application/octet-stream"
FILE_SCHEMA: Final[Mapping[str, Any]] = {
    "type": "object",
    "description": "A file: its text, or its bytes in base64 as data.",
    "properties": {
        "filename": {"type": "string"},
        "media_type": {"type": "string"},
        "text": {"type": "string"},
        "data": {"type": "string", "contentEncoding": "base64"},
    },
    "additionalProperties": False,
}
_MEDIA_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}")
_ESCAPES: Final = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})  # as browsers do (WHATWG, multipart/form-data encoding)


class BadArguments(Exception):
    """The arguments are invalid. The message is safe to show."""


class FormField(msgspec.Struct, frozen=True, omit_defaults=True):
    """A member of a form. `media`: its media type, if not the value's; `file`: its value, or each item, is a file."""

    name: str
    media: str = ""
    file: bool = False


class BodyContent(NamedTuple):
    """The body of a request."""

    body: bytes
    media_type: str


class _FormPart(NamedTuple):
    name: str
    content: BodyContent
    filename: str = ""


def is_media_type(text: str) -> bool:
    """Whether this is a media type without parameters or wildcards."""
    return _MEDIA_TYPE.fullmatch(text) is not None and "*" not in text


def file_content(argument: str, value: Any, media_type: str = "") -> BodyContent:
    """The bytes of a client's file. `media_type` overrides the client's. Raises BadArguments."""
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict) or value.keys() - FILE_SCHEMA["properties"].keys():
        raise BadArguments(f"the argument {argument!r} must be a file: an object with text or data, filename and media_type")
    text, data, declared_type = value.get("text"), value.get("data"), value.get("media_type")
    if isinstance(text, str) == isinstance(data, str):
        raise BadArguments(f"the argument {argument!r} must have either text or data (base64)")
    if declared_type is not None and not (isinstance(declared_type, str) and is_media_type(declared_type)):
        raise BadArguments(f"the argument {argument!r} has no valid media_type")
    if isinstance(text, str):
        return BodyContent(text.encode(), media_type or declared_type or "text/plain; charset=utf-8")
    try:
        return BodyContent(base64.b64decode(str(data), validate=True), media_type or declared_type or OCTET_STREAM)
    except (binascii.Error, ValueError):
        raise BadArguments(f"the argument {argument!r} has data that is not base64") from None


def encode_form(argument: str, value: Any, fields: Sequence[FormField], text_of: Callable[[Any], str]) -> BodyContent:
    """Encodes a form: one part for each member, or for each item of a list. Raises BadArguments."""
    if not isinstance(value, dict):
        raise BadArguments(f"the argument {argument!r} must be an object")
    known = {field.name: field for field in fields}
    parts = [
        _read_part(f"{argument}.{name}", known.get(name, FormField(name)), item, text_of)
        for name, each in value.items()
        for item in (each if isinstance(each, list) else [each])
        if item is not None
    ]
    boundary = _boundary(parts)
    lines = [b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary, _part_head(part), part.content.body) for part in parts]
    return BodyContent(b"".join(lines) + b"--%s--\r\n" % boundary, f"{MULTIPART}; boundary={boundary.decode()}")


def _read_part(argument: str, field: FormField, item: Any, text_of: Callable[[Any], str]) -> _FormPart:
    if not field.file:
        usual = "application/json" if isinstance(item, dict | list) else ""  # plain text, whose type browsers omit
        return _FormPart(field.name, BodyContent(text_of(item).encode(), field.media or usual))
    content = file_content(argument, item, field.media)
    named = item.get("filename") if isinstance(item, dict) else None
    return _FormPart(field.name, content, named if isinstance(named, str) and named else "file")


def _part_head(part: _FormPart) -> bytes:
    name, filename = part.name.translate(_ESCAPES), part.filename.translate(_ESCAPES)
    file = f'; filename="{filename}"' if filename else ""
    kind = f"\r\nContent-Type: {part.content.media_type}" if part.content.media_type else ""
    return f'Content-Disposition: form-data; name="{name}"{file}{kind}'.encode()


def _boundary(parts: Sequence[_FormPart]) -> bytes:
    """A boundary from a digest of all parts, which none of them can contain."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(_part_head(part) + part.content.body)
    return b"interlock-" + digest.hexdigest()[:32].encode()
