"""Documents for tests: the head is always the same."""

from textwrap import indent

from gateway.workflows.dsl.document import Document
from gateway.workflows.dsl.loading import Source, read_document, read_source

HEAD = "document: {dsl: '1.0.3', namespace: test, name: example, version: '1.0.0'}\n"


def text_of(tasks: str, rest: str = "") -> str:
    """A document with these tasks, a YAML list, and further members."""
    return f"{HEAD}{rest}\ndo:\n{indent(tasks.strip(), '  ')}\n"


def source_of(tasks: str, rest: str = "") -> Source:
    return read_source(text_of(tasks, rest))


def document_of(tasks: str, rest: str = "") -> Document:
    return read_document(source_of(tasks, rest))
