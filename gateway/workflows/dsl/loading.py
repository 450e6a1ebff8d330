"""Reads the text of a workflow, YAML or JSON, and tells everything that is wrong with its shape, each with path and line."""

import asyncio
from typing import Any, Final

from msgspec import Struct
from pydantic import BaseModel, ValidationError

from gateway.workflows.dsl.document import Document
from gateway.workflows.dsl.wording import problems_of
from gateway.workflows.dsl.yaml_reader import Lines, Unreadable, read_yaml
from gateway.workflows.problems import DocumentRefused, Problem

SIZE_MAX: Final = 1 << 20  # characters of a document
LARGE: Final = 16 << 10  # characters; a longer document is read in a thread
PROBLEMS_MAX: Final = 100


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


def name_in(text: str) -> str:
    """The name that a text gives its workflow, whatever else is wrong with it; empty where it gives none."""
    try:
        data = read_source(text).data
    except DocumentRefused:
        return ""
    about = data.get("document") if isinstance(data, dict) else None
    name = about.get("name") if isinstance(about, dict) else None
    return name if isinstance(name, str) else ""


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
        raise DocumentRefused(shape_problems(source, Document, error)) from error


def shape_problems(source: Source, model: type[BaseModel], error: ValidationError) -> tuple[Problem, ...]:
    """The problems of a text that `model` refused, at most PROBLEMS_MAX, in the order of the text."""
    found = problems_of(model, source.data, error.errors(include_url=False, include_input=False))
    return tuple(sorted({source.problem(pointer(*steps), reason) for steps, reason in found})[:PROBLEMS_MAX])


def _refused(reason: str, line: int) -> DocumentRefused:
    return DocumentRefused((Problem(line, "", reason),))
