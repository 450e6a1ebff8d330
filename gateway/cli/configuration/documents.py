"""Reads documents from files, folders and standard input, and finds what is wrong with them before the gateway is asked."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.cli.configuration.kinds import KINDS, WORKFLOW, DocumentKind
from gateway.cli.configuration.problems import BadMember, DocumentProblem, DocumentsRefused
from gateway.cli.configuration.references import check_no_secret, read_member_files
from gateway.cli.exit_codes import WrongUsage
from gateway.workflows.dsl.yaml_reader import Lines, Unreadable, read_documents, read_yaml

STANDARD_INPUT: Final = "-"
SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
FILES_MAX: Final = 10_000
BYTES_MAX: Final = 16 << 20  # of one file
NAME_FORM: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
TOP_MEMBERS: Final = ("kind", "name", "spec")


@dataclass(frozen=True, slots=True)
class Declared:
    """One object as a document declares it. `spec` has the text or data of the files that it names, and references to secrets as text."""

    kind: DocumentKind
    name: str
    spec: Mapping[str, Any]
    file: str
    lines: Lines = field(repr=False)

    @property
    def folder(self) -> Path:
        """Where the files are that the document names."""
        return Path() if self.file == STANDARD_INPUT else Path(self.file).parent

    @property
    def title(self) -> str:
        return f"{self.kind.name} {self.name}"

    def problem_at(self, path: str, reason: str) -> DocumentProblem:
        return DocumentProblem(self.file, self.lines.find(path), path, reason)


class DocumentReader:
    """Collects the documents of sources, with all of their problems."""

    def __init__(self) -> None:
        self.problems: list[DocumentProblem] = []
        self._found: dict[str, Declared] = {}
        self._bare: dict[Path, DocumentProblem] = {}  # files in folders whose documents are of no kind
        self._named: set[Path] = set()  # files that documents name

    def read(self, sources: Iterable[str]) -> list[Declared]:
        """Returns what the sources declare, in the order of its application. Raises DocumentsRefused and WrongUsage."""
        for file, is_in_folder in _list_files(sources):
            self._read_file(file, is_in_folder)
        self.problems += [problem for path, problem in self._bare.items() if path not in self._named]
        if self.problems:
            raise DocumentsRefused(self.problems)
        if not self._found:
            raise WrongUsage("there are no documents", "give -f FILE, a folder with *.yaml, or - for standard input")
        return sorted(self._found.values(), key=lambda each: (each.kind.order, each.kind.name, each.name))

    def _read_file(self, file: str, is_in_folder: bool) -> None:
        try:
            documents = read_documents(_read_text(file))
        except Unreadable as error:
            self.problems.append(DocumentProblem(file, error.line, "", error.reason))
            return
        for data, lines in documents:
            for one, at in _items_of(data, lines):
                self._add(one, at, file, is_in_folder)

    def _add(self, data: Any, lines: Lines, file: str, is_in_folder: bool) -> None:
        if data is None:
            return
        if is_in_folder and isinstance(data, dict) and "kind" not in data and "spec" not in data:
            self._bare[Path(file).resolve()] = DocumentProblem(file, lines.line, "", "has no kind, and no document names the file")
            return
        try:
            found = _declare(data, lines, file)
        except BadMember as wrong:
            self.problems.append(DocumentProblem(file, lines.find(wrong.path), wrong.path, wrong.reason))
            return
        first = self._found.setdefault(found.name, found)
        if first is not found:
            reason = f"is declared before, as {first.kind.name}, in {first.file}:{first.lines.line}; all kinds share one namespace"
            self.problems.append(found.problem_at("/name", reason))
        if isinstance(named := data["spec"].get("file"), str):
            self._named.add((found.folder / named).resolve())


def _declare(data: Any, lines: Lines, file: str) -> Declared:
    """Returns what a document declares. Raises BadMember."""
    if not isinstance(data, dict):
        raise BadMember("", "must be a mapping with kind, name and spec")
    for name in data:
        if name not in TOP_MEMBERS:
            raise BadMember(f"/{name}", "is no member of a document: kind, name, spec")
    kind, name, spec = (data.get(each) for each in TOP_MEMBERS)
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadMember("/kind", f"must be one of: {', '.join(KINDS)}")
    if not isinstance(name, str) or not NAME_FORM.fullmatch(name):
        raise BadMember("/name", "must be of a-z, 0-9 and -, at most 64 characters")
    if not isinstance(spec, dict):
        raise BadMember("/spec", "must be a mapping")
    found = KINDS[kind]
    found.check_members(spec)
    check_no_secret(spec.get("upstream", {}))
    declared = Declared(found, name, spec, file, lines)
    spec = _read_workflow(declared) if found is WORKFLOW else read_member_files(spec, found.files, declared.folder)
    return Declared(found, name, spec, file, lines)


def _read_workflow(declared: Declared) -> Mapping[str, Any]:
    """Returns the spec with the text of the workflow. Raises BadMember unless it is a text of a workflow of this name."""
    spec, where = declared.spec, "/spec/file" if "file" in declared.spec else "/spec/document"
    text = spec.get("document")
    if "file" in spec:
        if text is not None or not isinstance(spec["file"], str):
            raise BadMember(where, "must be the path of a file, without a document beside it")
        try:
            text = (declared.folder / spec["file"]).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadMember(where, f"can't be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(text, str):
        raise BadMember(where, "must be the text of the workflow, as in `document: |`, or give file: PATH")
    if not isinstance(spec.get("paused", False), bool):
        raise BadMember("/spec/paused", "must be true or false")
    try:
        data, _ = read_yaml(text)
    except Unreadable as error:
        raise BadMember(where, f"{error.reason} (line {error.line} of the workflow)") from error
    about = data.get("document") if isinstance(data, dict) else None
    if not isinstance(about, dict) or about.get("name") != declared.name:
        raise BadMember(where, f"must be a workflow whose document.name is {declared.name}")
    paused = {"paused": spec["paused"]} if "paused" in spec else {}
    return {"document": text, **paused}


def _items_of(data: Any, lines: Lines) -> Iterator[tuple[Any, Lines]]:
    """Yields a document, or the items of one that is a list of them, such as `interlock export --json` prints."""
    if isinstance(data, dict) and data.keys() == {"items"} and isinstance(data["items"], list):
        at = lines.within["items"]
        yield from ((each, at.within[str(index)]) for index, each in enumerate(data["items"]))
    else:
        yield data, lines


def _list_files(sources: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yields each file with whether it was found in a folder. Raises WrongUsage."""
    for source in sources:
        path = Path(source)
        if source == STANDARD_INPUT or not path.is_dir():
            yield source, False
            continue
        inside = sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES and each.is_file() and not _is_hidden(each, path))
        if len(inside) > FILES_MAX:
            raise WrongUsage(f"{source} has more than {FILES_MAX} files", "give folders within it")
        yield from ((str(each), True) for each in inside)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(step.startswith(".") for step in path.relative_to(folder).parts)


def _read_text(file: str) -> str:
    """Returns the text of a file. Raises WrongUsage."""
    try:
        raw = sys.stdin.buffer.read(BYTES_MAX + 1) if file == STANDARD_INPUT else Path(file).read_bytes()
        if len(raw) > BYTES_MAX:
            raise WrongUsage(f"{file} has more than {BYTES_MAX >> 20} MB", "split it")
        return raw.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WrongUsage(f"{file} can't be read: {getattr(error, 'strerror', None) or error}", "give -f FILE, a folder, or -") from error
