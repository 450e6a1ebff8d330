"""The documents of a folder, and why some of them are refused. This module imports nothing of the engine."""

from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from gateway.workflows.problems import DocumentRefused, Problem

RESERVED_NAME: Final = "schema"  # no workflow has it, since GET /api/workflows/schema is the JSON Schema of documents
SUFFIXES: Final = (".yaml", ".yml", ".json")


class RefusedDocument(Struct, frozen=True):
    """A document of the folder that is not published. `name` is the workflow's, empty where the document does not say it."""

    file: str
    name: str
    problems: tuple[Problem, ...]

    def is_called(self, name: str) -> bool:
        """Whether a reader means this document by a name: of the workflow or of the file, with or without its suffix."""
        return name in (self.name, self.file, Path(self.file).stem)

    def to_document(self) -> dict[str, Any]:
        """The document as /api shows it."""
        problems = [{"line": each.line, "path": each.path, "reason": each.reason} for each in self.problems]
        return {"file": self.file, "name": self.name, "problems": problems}


def read_file(path: Path) -> str:
    """The text of a document. Raises FileNotFoundError, and DocumentRefused for what can't be read."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise
    except UnicodeError as error:
        raise DocumentRefused((Problem(0, "", "is no text in UTF-8"),)) from error
    except OSError as error:
        raise DocumentRefused((Problem(0, "", f"can't be read: {error.strerror or error}"),)) from error


def documents_in(folder: Path) -> list[Path]:
    """The documents of a folder in the order of their names, without the files of their rehearsals. Raises OSError."""
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and ".test." not in path.name)
