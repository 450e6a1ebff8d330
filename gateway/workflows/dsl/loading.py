"""Reads the text of a workflow, YAML or JSON, and tells everything that is wrong with its shape, each with path and line."""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gateway.workflows.dsl.constructs import Construct
from gateway.workflows.dsl.document import Document, kind_of
from gateway.workflows.dsl.yaml_reader import Lines, Unreadable, read_yaml
from gateway.workflows.problems import DocumentRefused, Problem

SIZE_MAX: Final = 1 << 20  # characters of a document
LARGE: Final = 16 << 10  # characters; a longer document is read in a thread
PROBLEMS_MAX: Final = 100
READ_MAX: Final = 10 * PROBLEMS_MAX  # errors of the models; a value of several types has one for each type
TYPES: Final = {  # pydantic's errors about the type of a value, and what the type is called
    "model_type": "object",
    "dict_type": "object",
    "list_type": "list",
    "string_type": "text",
    "bool_type": "boolean",
    "bool_parsing": "boolean",
    "int_type": "whole number",
    "int_parsing": "whole number",
    "int_from_float": "whole number",
    "float_type": "number",
    "float_parsing": "number",
}


class Source(Struct, frozen=True):
    """A document's plain data, and the lines of its values."""

    data: Any
    lines: Lines

    def line_of(self, path: str) -> int:
        """The line of the value at a JSON pointer, or of the closest one around it."""
        return self.lines.find(path)

    def problem(self, path: str, reason: str) -> Problem:
        return Problem(self.line_of(path), path, reason)


def pointer(*steps: str | int) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in steps)


def read_source(text: str) -> Source:
    """The plain data of a YAML or JSON text. Raises DocumentRefused."""
    if len(text) > SIZE_MAX:
        raise _refused(f"has {len(text)} characters, more than {SIZE_MAX}", 1)
    try:
        return Source(*read_yaml(text))
    except Unreadable as error:
        raise _refused(error.reason, error.line) from error


async def read_text(text: str) -> tuple[Source, Document]:
    """The workflow that a text describes, without holding up the event loop. Raises DocumentRefused."""
    if LARGE < len(text) <= SIZE_MAX:
        return await asyncio.to_thread(_read, text)
    return _read(text)


def _read(text: str) -> tuple[Source, Document]:
    source = read_source(text)
    return source, read_document(source)


def read_document(source: Source) -> Document:
    """The workflow that a text describes. Raises DocumentRefused with every problem of its shape."""
    if not isinstance(source.data, dict):
        raise _refused("is no workflow: it has no members `document` and `do`", 1)
    try:
        return Document.model_validate(source.data)
    except ValidationError as error:
        raise DocumentRefused(_problems(source, error.errors(include_url=False, include_input=False))) from error


def _refused(reason: str, line: int) -> DocumentRefused:
    return DocumentRefused((Problem(line, "", reason),))


def _problems(source: Source, errors: list[ErrorDetails]) -> tuple[Problem, ...]:
    """The problems of a document. A value of the wrong type has one problem, however many types it may have."""
    found: set[Problem] = set()
    expected: dict[str, list[str]] = {}
    around: set[str] = set()  # pointers of values with a problem within them, or with the right type
    for error in errors[:READ_MAX]:
        path = _pointer_of(source.data, error["loc"], missing=error["type"] == "missing")
        if error["type"] in TYPES:
            expected.setdefault(path, []).append(_expected_of(error))
        else:
            found.add(source.problem(path, _reason_of(error)))
            around.add(path)
        around.update(_pointers_around(path))
    found |= {
        source.problem(path, f"is no {' and no '.join(dict.fromkeys(types))}") for path, types in expected.items() if path not in around
    }
    return tuple(sorted(found)[:PROBLEMS_MAX])


def _pointers_around(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path


def _expected_of(error: ErrorDetails) -> str:
    """The type of value that stands at a place, with the members that an object may have."""
    name = error.get("ctx", {}).get("class_name", "")
    model = next((each for each in Construct.__subclasses__() if each.__name__ == name), None)
    if model is None:
        return TYPES[error["type"]]
    members = [f"`{field.alias or name}`" for name, field in model.model_fields.items()]
    return f"object with {', '.join(members)}"


def _reason_of(error: ErrorDetails) -> str:
    match error["type"]:
        case "extra_forbidden":
            return "is not known to the DSL here"
        case "missing":
            return f"lacks `{error['loc'][-1]}`"
    return error["msg"].removeprefix("Value error, ")


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
