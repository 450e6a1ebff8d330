"""Policy files: the built-in ones, and those of the operator's folder."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

LINKS = "links.yaml"
FolderStamp = tuple[tuple[str, int, int, int], ...]


class BadPolicy(Exception):
    """A policy that can't be used; `file` and `problem` are for the operator. `line` counts from 1; 0 means no line."""

    def __init__(self, file: str, problem: str, line: int = 0) -> None:
        super().__init__(f"{file}:{line}: {problem}" if line else f"{file}: {problem}")
        self.file = file
        self.problem = problem
        self.line = line

    def describe_in(self, folder: str) -> str:
        """Returns the message with the path of its file, if the folder of the setting `policies` has that file."""
        return (
            f"{Path(folder) / self.file}{str(self).removeprefix(self.file)}"
            if folder and (Path(folder) / self.file).exists()
            else str(self)
        )


def read_built_in() -> Iterator[tuple[str, str]]:
    """Yields the name and text of each built-in policy file."""
    for file in sorted((files("policies") / "rules").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".cedar"):
            yield file.name, file.read_text("utf-8")


def read_operator_files(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields the name and text of each of the operator's files. Raises BadPolicy."""
    if not folder.is_dir():
        raise BadPolicy(str(folder), "is not a folder; the setting policies must name a folder of .cedar files")
    for path in _files(folder):
        try:
            yield path.name, path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadPolicy(path.name, str(error)) from error


def _files(folder: Path) -> list[Path]:
    """The policy files, then links.yaml if it exists."""
    links = folder / LINKS
    return [*sorted(folder.glob("*.cedar")), *([links] if links.is_file() else [])]


def folder_stamp(folder: Path) -> FolderStamp:
    """A value that changes whenever a file of the folder may have changed; empty when the folder is missing or empty."""
    found = []
    for path in _files(folder):
        try:
            status = path.stat()
        except OSError:  # deleted or a dangling link: reading it reports that
            found.append((path.name, 0, 0, 0))
        else:
            found.append((path.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)
