"""Parses the text of an OpenAPI document: JSON, or the JSON-compatible part of YAML (OpenAPI 3.1 s4.3)."""

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from adapters.contract import UpstreamFault
from policies.strict_json import MAX_DEPTH, BadJson, parse

DOCUMENT_MAX: Final = 32 << 20  # bytes
MEMBERS_MAX: Final = 4_000_000  # arrays, objects and names; the operator chooses the document, and it is parsed in a thread
_IS_FAST: Final = bool(yaml.__with_libyaml__)
YAML_MAX: Final = DOCUMENT_MAX if _IS_FAST else 1 << 20  # bytes; PyYAML without libyaml reads 0.2 MB a second
_LOADER: Final = yaml.CSafeLoader if _IS_FAST else yaml.SafeLoader
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")
_SCALAR_WORDS: Final = {"null": None, "Null": None, "NULL": None, "~": None, "": None} | {
    word: said for said, name in ((True, "true"), (False, "false")) for word in (name, name.capitalize(), name.upper())
}
_TAG_PREFIX: Final = "tag:yaml.org,2002:"
_TAGS: Final = frozenset({"!", *(_TAG_PREFIX + name for name in ("str", "int", "float", "bool", "null", "map", "seq"))})


def parse_document(text: bytes) -> Any:
    """Parses a document: JSON if it begins with `{` or `[`, else YAML without aliases. Raises UpstreamFault.

    An alias could make a small text endless.
    """
    if text.lstrip()[:1] in (b"{", b"["):
        try:
            return parse(text, MEMBERS_MAX)
        except BadJson as error:
            raise UpstreamFault("The OpenAPI document is not JSON that the gateway accepts", str(error)[:200]) from None
    if len(text) > YAML_MAX:
        raise UpstreamFault("The OpenAPI document is not JSON, and too large for YAML", f"more than {YAML_MAX} bytes")
    try:
        return _build_value(yaml.parse(text, Loader=_LOADER))
    except (yaml.YAMLError, BadJson, ValueError) as error:
        raise UpstreamFault("The OpenAPI document is neither JSON nor YAML", str(error)[:200]) from None


def _build_value(events: Iterator[Event]) -> Any:
    """The value of one YAML document. Raises YAMLError, and BadJson for numbers that JSON does not have.

    Limits the number of scalars, sequences and mappings to MEMBERS_MAX.
    """
    root: list[Any] = []
    stack: list[_OpenCollection] = [_OpenCollection(root)]
    members = 0
    for event in events:
        if isinstance(event, AliasEvent):
            raise yaml.YAMLError("the document has an alias")
        if isinstance(event, DocumentStartEvent) and root:
            raise yaml.YAMLError("the text has more than one document")
        if isinstance(event, ScalarEvent | MappingStartEvent | SequenceStartEvent):
            members += 1
            if members > MEMBERS_MAX:
                raise yaml.YAMLError(f"the document has more than {MEMBERS_MAX} scalars, sequences and mappings")
        if isinstance(event, ScalarEvent):
            stack[-1].add(event, _scalar_value(event))
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            _check_tag(event.tag)
            made: Any = {} if isinstance(event, MappingStartEvent) else []
            stack[-1].add(event, made)
            stack.append(_OpenCollection(made))
            if len(stack) > MAX_DEPTH:
                raise yaml.YAMLError(f"the document is nested deeper than {MAX_DEPTH} levels")
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            stack.pop()
    return root[0] if root else None


class _OpenCollection:
    """A mapping or sequence that has not ended."""

    __slots__ = ("_collection", "_key")

    def __init__(self, made: Any) -> None:
        self._collection = made
        self._key: str | None = None

    def add(self, event: Event, value: Any) -> None:
        """Adds the next key or value. Keys stay texts, so that `200:` and `on:` keep their spelling."""
        if isinstance(self._collection, list):
            self._collection.append(value)
        elif self._key is not None:
            self._collection[self._key], self._key = value, None
        elif not isinstance(event, ScalarEvent):
            raise yaml.YAMLError("a key is not a text")
        elif event.value in self._collection:
            raise yaml.YAMLError("a mapping has the same key twice")
        else:
            self._key = event.value


def _scalar_value(event: ScalarEvent) -> Any:
    """The JSON value of a scalar (YAML 1.2, core schema). Other numbers, such as `1:30` or `0b1`, are texts."""
    _check_tag(event.tag)
    text = str(event.value)
    if event.tag == f"{_TAG_PREFIX}str" or (event.tag is None and not event.implicit[0]):
        return text
    if text in _SCALAR_WORDS:
        return _SCALAR_WORDS[text]
    return parse(text.encode()) if _NUMBER.fullmatch(text) else text


def _check_tag(tag: str | None) -> None:
    if tag is not None and tag not in _TAGS:
        raise yaml.YAMLError("the document has a tag without a JSON equivalent")
