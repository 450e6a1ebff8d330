"""Reads YAML 1.2 (and so JSON) into plain data, with the line of each value. Each bound is checked before memory is used for it."""

import math
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml
from msgspec import Struct

DEPTH_MAX: Final = 64
NODES_MAX: Final = 50_000  # values of a document, those of aliases counted at each place where they stand
DOCUMENTS_MAX: Final = 10_000  # of one text
KEY_MAX: Final = 1000  # characters of a key
PATHS_MAX: Final = 16 << 20  # characters of the JSON pointers of all values together, which later checks may build
_PARSER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml, where PyYAML was built with it
_TAG: Final = "tag:yaml.org,2002:"
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = frozenset({"true", "True", "TRUE", "false", "False", "FALSE"})
_PROBLEMS: Final = {  # phrases of libyaml and of PyYAML, and what they mean for the author
    "mapping values are not allowed": "a `:` stands where no member can begin; indent the line like those beside it, or quote the text",
    "that cannot start any token": "a value begins with a tab, @, ` or %; indent by spaces, and quote such a text",
    "tab character": "a tab stands where a space must; indent by spaces",
    "expected key": "a line is indented differently from the members beside it, or a quoted text goes on after its end",
    "expected '-' indicator": "a member stands among the items of a list; begin it with `- `, or indent it differently",
    "expected ',' or '": "a bracket or brace is not closed, or a comma is missing",
    "expected node content": "a value is missing before a bracket or the end, or a bracket is not closed",
    "unexpected end of stream": "a quoted text is not closed",
    "escape": "a text in double quotes has a backslash before a character that needs none; use single quotes",
    "expected ':'": "a line is neither a member, `name: value`, nor a part of the text above it",
    "expected alphabetic": "an anchor or alias has no name; quote texts that begin with * or &",
    "<document start>": "something follows the end of the document",
}
_INT: Final = re.compile(r"[-+]?[0-9]{1,300}")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]{1,300}|[0-9]{1,300}(?:\.[0-9]{0,300})?)(?:[eE][-+]?[0-9]{1,3})?")


class Unreadable(Exception):
    """The text is no document; `reason` and `line` (from 1, or 0) say why and where."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


class Lines(Struct):
    """The line of a value, and those of the values within it by their step of a JSON pointer."""

    line: int
    within: dict[str, "Lines"]

    def find(self, path: str) -> int:
        """The line of the value at a JSON pointer, or of the closest one around it."""
        at = self
        for step in path.split("/")[1:]:
            found = at.within.get(step.replace("~1", "/").replace("~0", "~"))
            if found is None:
                break
            at = found
        return at.line


class _Value(Struct):
    """A value that was read: how many values it has with itself, and how long their pointers within it are together."""

    data: Any
    lines: Lines
    nodes: int = 1
    paths: int = 0


_NO_LINES: Final[dict[str, Lines]] = {}


def read_yaml(text: str) -> tuple[Any, Lines]:
    """The data of a text, None for an empty one, with the lines of its values. Raises Unreadable."""
    found = _read_all(text, 1)
    return found[0] if found else (None, Lines(0, _NO_LINES))


def read_documents(text: str) -> list[tuple[Any, Lines]]:
    """The data of each document of a text, at most DOCUMENTS_MAX, with the lines of its values. Raises Unreadable."""
    return _read_all(text, DOCUMENTS_MAX)


def _read_all(text: str, most: int) -> list[tuple[Any, Lines]]:
    """The documents of a text. Raises Unreadable, also for more than `most`."""
    try:
        events = yaml.parse(text, _PARSER)
        next(events)  # the stream's start
        found: list[tuple[Any, Lines]] = []
        while not isinstance(event := next(events), yaml.StreamEndEvent):
            if len(found) == most:
                raise Unreadable("has several YAML documents" if most == 1 else f"has more than {most} YAML documents", _line_of(event))
            value = _Reader(events).document()
            found.append((value.data, value.lines))
        return found
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise Unreadable(f"is not YAML: {_words_of(getattr(error, 'problem', None) or '')}", mark.line + 1 if mark else 0) from error


def _words_of(problem: str) -> str:
    """What libyaml means by a problem."""
    return next((words for phrase, words in _PROBLEMS.items() if phrase in problem), "its structure can't be read here")


class _Reader:
    """Composes values of the parser's events, one at a time."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, _Value | None] = {}  # None for a value that is not complete
        self._nodes = 0
        self._paths = 0

    def document(self) -> _Value:
        """The document whose start was the last event."""
        value = self._value(next(self._events), 0, 0)
        next(self._events)  # the document's end
        return value

    def _value(self, event: Any, depth: int, prefix: int) -> _Value:
        """The value that begins with an event. `prefix`: how long its pointer is."""
        line = _line_of(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), line, prefix)
        if depth >= DEPTH_MAX:
            raise Unreadable(f"is nested deeper than {DEPTH_MAX} levels", line)
        self._count(1, prefix, line)
        if event.anchor is not None:
            if str(event.anchor) in self._anchors:
                raise Unreadable(f"has the anchor `{event.anchor[:50]}` twice", line)
            self._anchors[str(event.anchor)] = None
        if isinstance(event, yaml.ScalarEvent):
            value = _Value(_scalar(event, line), Lines(line, _NO_LINES))
        elif event.tag not in (None, "!", f"{_TAG}map", f"{_TAG}seq"):
            raise Unreadable(f"has a value that JSON can't have: `{event.tag[:50]}`", line)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._read_sequence(line, depth, prefix)
        else:
            value = self._read_mapping(line, depth, prefix)
        if event.anchor is not None:
            self._anchors[str(event.anchor)] = value
        return value

    def _alias(self, anchor: str, line: int, prefix: int) -> _Value:
        if anchor not in self._anchors:
            raise Unreadable(f"has the alias `{anchor[:50]}` of nothing before it", line)
        value = self._anchors[anchor]
        if value is None:
            raise Unreadable("has an alias within what it stands for", line)
        self._count(value.nodes, value.paths + value.nodes * prefix, line)
        return value

    def _count(self, nodes: int, paths: int, line: int) -> None:
        self._nodes += nodes
        self._paths += paths
        if self._nodes > NODES_MAX:
            raise Unreadable(f"has more than {NODES_MAX} values", line)
        if self._paths > PATHS_MAX:
            raise Unreadable("has names that are too long for so many values within each other", line)

    def _read_sequence(self, line: int, depth: int, prefix: int) -> _Value:
        made = _Value([], Lines(line, {}))
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            step = str(len(made.data))
            value = self._value(event, depth + 1, prefix + len(step) + 1)
            made.data.append(value.data)
            _add(made, step, value, value.lines)
        return made

    def _read_mapping(self, line: int, depth: int, prefix: int) -> _Value:
        made = _Value({}, Lines(line, {}))
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            at = _line_of(event)
            key = self._key(event, at)
            if key in made.data:
                raise Unreadable(f"has the key `{key[:50]}` twice", at)
            value = self._value(next(self._events), depth + 1, prefix + len(key) + 1)
            made.data[key] = value.data
            _add(made, key, value, Lines(at, value.lines.within))
        return made

    def _key(self, event: Any, line: int) -> str:
        if isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(str(event.anchor))
            key = known.data if known is not None else None
        else:
            key = event.value if isinstance(event, yaml.ScalarEvent) else None
            if event.anchor is not None and isinstance(key, str):
                self._anchors[str(event.anchor)] = _Value(key, Lines(line, _NO_LINES))
        if not isinstance(key, str):
            raise Unreadable("has a key that is no text", line)
        if len(key) > KEY_MAX:
            raise Unreadable(f"has a key of {len(key)} characters, more than {KEY_MAX}", line)
        _check_storable(key, line)
        return key


def _add(around: _Value, step: str, value: _Value, lines: Lines) -> None:
    around.lines.within[step] = lines
    around.nodes += value.nodes
    around.paths += value.paths + value.nodes * (len(step) + 1)


def _check_storable(text: str, line: int) -> None:
    if "\0" in text:  # PostgreSQL stores none in text, and names of steps are stored
        raise Unreadable("has a text with a NUL character", line)


def _line_of(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _scalar(event: Any, line: int) -> Any:
    """A scalar by the rules of YAML 1.2's core schema, in which `on` and `yes` are texts."""
    text = event.value
    kind = "str" if event.tag in (None, "!") else event.tag.removeprefix(_TAG)
    if event.implicit[0] and event.tag is None:
        kind = _plain_kind(text)
    match kind:
        case "str":
            _check_storable(text, line)
            return text
        case "null":
            return None
        case "bool" if text in _BOOL:
            return text.lower() == "true"
        case "int" if _INT.fullmatch(text):
            return int(text)
        case "float" if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
            return number
    raise Unreadable(f"has a value that JSON can't have: `{text[:50]}`", line)


def _plain_kind(text: str) -> str:
    if text in _NULL:
        return "null"
    if text in _BOOL:
        return "bool"
    if _INT.fullmatch(text):
        return "int"
    return "float" if _FLOAT.fullmatch(text) else "str"
