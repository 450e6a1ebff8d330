"""Reads the text of a workflow, YAML or JSON, and tells everything that is wrong with its shape, each with path and line."""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import yaml
from msgspec import Struct
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.workflows.dsl.document import Document, kind_of
from gateway.workflows.problems import DocumentRefused, Problem

SIZE_MAX: Final = 1 << 20  # characters of a document
DEPTH_MAX: Final = 64
NODES_MAX: Final = 50_000  # values of a document, those of aliases counted at each place where they stand
PROBLEMS_MAX: Final = 100


class Source(Struct, frozen=True):
    """A document's plain data, and the line of each value by its JSON pointer."""

    data: Any
    lines: Mapping[str, int]

    def line_of(self, path: str) -> int:
        """The line of a value, or of the closest one around it."""
        while path and path not in self.lines:
            path = path.rpartition("/")[0]
        return self.lines.get(path, 0)

    def problem(self, path: str, reason: str) -> Problem:
        return Problem(self.line_of(path), path, reason)


def pointer(*steps: str | int) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)


class _Loader(yaml.SafeLoader):
    """Composes nodes by the rules of YAML 1.2's core schema, in which `on` and `yes` are texts."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  # the library's own attribute, which is one of the class

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # the library's stubs leave it out
        if self._depth > DEPTH_MAX:
            raise _Unreadable(f"is nested deeper than {DEPTH_MAX} levels", event.start_mark.line + 1)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


_PLAIN: Final = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]{1,300}", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]{1,300}|[0-9]{1,300}(?:\.[0-9]{0,300})?)(?:[eE][-+]?[0-9]{1,3})?", "-+.0123456789"),
)
for _name, _pattern, _firsts in _PLAIN:
    _starts = [None if first == "\0" else first for first in _firsts]
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), [first for first in _starts if first])
_Loader.yaml_implicit_resolvers[""] = [("tag:yaml.org,2002:null", re.compile(r"\Z"))]


_COLLECTIONS: Final = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


class _Unreadable(Exception):
    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


class _Reader:
    """Turns nodes into plain data and notes the line of each value."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self._count = 0
        self._around: list[yaml.Node] = []

    def value_of(self, node: yaml.Node, path: str) -> Any:
        line = node.start_mark.line + 1
        self._count += 1
        if self._count > NODES_MAX:
            raise _Unreadable(f"has more than {NODES_MAX} values", line)
        if any(node is each for each in self._around):
            raise _Unreadable("has an alias within what it stands for", line)
        self.lines[path] = line
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if node.tag not in _COLLECTIONS:
            raise _Unreadable(f"has a value that JSON can't have: `{node.tag[:50]}`", line)
        self._around.append(node)
        try:
            return self._sequence(node, path) if isinstance(node, yaml.SequenceNode) else self._mapping(node, path)
        finally:
            self._around.pop()

    def _sequence(self, node: yaml.SequenceNode, path: str) -> list[Any]:
        return [self.value_of(each, f"{path}/{index}") for index, each in enumerate(node.value)]

    def _mapping(self, node: yaml.Node, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _Unreadable("has a key that is no text", key.start_mark.line + 1)
            if key.value in found:
                raise _Unreadable(f"has the key `{key.value}` twice", key.start_mark.line + 1)
            found[key.value] = self.value_of(value, path + pointer(key.value))
            self.lines[path + pointer(key.value)] = key.start_mark.line + 1
        return found


def _scalar(node: yaml.ScalarNode) -> Any:
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    match kind:
        case "str":
            return node.value
        case "null":
            return None
        case "bool":
            return node.value.lower() == "true"
        case "int":
            return int(node.value)
        case "float" if math.isfinite(number := float(node.value)):
            return number
    raise _Unreadable(f"has a value that JSON can't have: `{node.value[:50]}`", node.start_mark.line + 1)


def read_source(text: str) -> Source:
    """The plain data of a YAML or JSON text. Raises DocumentRefused."""
    if len(text) > SIZE_MAX:
        raise _refused(f"has {len(text)} characters, more than {SIZE_MAX}", 1)
    reader = _Reader()
    try:
        root = yaml.compose(text, _Loader)
        data = None if root is None else reader.value_of(root, "")
    except _Unreadable as error:
        raise _refused(error.reason, error.line) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise _refused(f"is not YAML: {getattr(error, 'problem', None) or error}", mark.line + 1 if mark else 0) from error
    return Source(data, reader.lines)


def read_document(source: Source) -> Document:
    """The workflow that a text describes. Raises DocumentRefused with every problem of its shape."""
    if not isinstance(source.data, dict):
        raise _refused("is no workflow: it has no members `document` and `do`", 1)
    try:
        return Document.model_validate(source.data)
    except ValidationError as error:
        found = {_problem(source, each) for each in error.errors(include_url=False, include_context=False)}
        raise DocumentRefused(tuple(sorted(found)[:PROBLEMS_MAX])) from error


def _refused(reason: str, line: int) -> DocumentRefused:
    return DocumentRefused((Problem(line, "", reason),))


def _problem(source: Source, error: ErrorDetails) -> Problem:
    reason = error["msg"].removeprefix("Value error, ")
    match error["type"]:
        case "extra_forbidden":
            reason = "is not known to the DSL here"
        case "missing":
            reason = f"lacks `{error['loc'][-1]}`"
    return source.problem(_pointer_of(source.data, error["loc"], missing=error["type"] == "missing"), reason)


def _pointer_of(data: Any, location: tuple[str | int, ...], missing: bool) -> str:
    """Where an error is. Between the steps of a location stand names of models, which are no members of the data."""
    steps: list[str | int] = []
    at_item = False
    for step in location[:-1] if missing else location:
        if isinstance(data, dict) and at_item and step == kind_of(data):
            at_item = False
        elif isinstance(data, dict) and step in data:
            at_item = (isinstance(data[step], dict) and len(data) == 1) or (bool(steps) and steps[-1] == "functions")
            steps.append(step)
            data = data[step]
        elif isinstance(data, list) and isinstance(step, int) and step < len(data):
            steps.append(step)
            data = data[step]
    return pointer(*steps)
