"""Docstrings: what they refer to exists, and their lines are filled."""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.house.source import ROOT, Source

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
PATH = re.compile(r"(?<![\w/.:-])((?:gateway|adapters|registry|policies|tests|docs)/[\w/.-]+\.(?:py|md|toml|cedar))")
MEMBER = re.compile(r"(?<![\w./`\"'-])`?([A-Z][a-z]\w*)\.([a-z_]\w*)(?:\(\))?`?(?![\w/.-])")
FOREIGN = frozenset({"Major.Minor", "ValidationError.errors"})  # no member of a class, and one of a library's class


@dataclass(frozen=True)
class ClassMembers:
    """The members of the classes of one name, with those of their bases. `has_unknown_base`: a base is of a library."""

    names: set[str] = field(default_factory=set)
    bases: set[str] = field(default_factory=set)


def docstrings(source: Source) -> Iterator[tuple[int, str]]:
    """The line and text of each docstring."""
    for node in ast.walk(source.tree):
        if isinstance(node, Documented) and (text := ast.get_docstring(node, clean=True)) is not None:
            yield node.body[0].lineno, text


def known_members(sources: Iterable[Source]) -> dict[str, ClassMembers]:
    """The members of all classes by the name of the class."""
    found: dict[str, ClassMembers] = {}
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                known = found.setdefault(node.name, ClassMembers())
                known.bases.update(ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases)
                known.names.update(_members_of(node))
    return found


def _members_of(node: ast.ClassDef) -> Iterator[str]:
    for each in ast.walk(node):
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield each.name
        elif isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "self":
            yield each.attr
    for statement in node.body:
        for target in [statement.target] if isinstance(statement, ast.AnnAssign) else getattr(statement, "targets", []):
            if isinstance(target, ast.Name):
                yield target.id


def _has_member(known: dict[str, ClassMembers], name: str, member: str) -> bool:
    if name not in known:
        return False
    return member in known[name].names or any(_has_member(known, base, member) for base in known[name].bases)


def missing_references(sources: Iterable[Source]) -> list[str]:
    """Docstrings that name a file or a member of a class that does not exist."""
    sources = list(sources)
    known = known_members(sources)
    found = []
    for source in sources:
        for line, text in docstrings(source):
            paths = [path for path in PATH.findall(text) if not (ROOT / path).exists()]
            members = [f"{name}.{member}" for name, member in MEMBER.findall(text) if not _has_member(known, name, member)]
            found += [f"{source.path}:{line}: {missing} does not exist" for missing in (*paths, *members) if missing not in FOREIGN]
    return found


def one_word_lines(sources: Iterable[Source]) -> list[str]:
    """Docstrings with a line of one word in the middle of a paragraph."""
    found = []
    for source in sources:
        for line, text in docstrings(source):
            lines = text.splitlines()
            for number, (before, words, after) in enumerate(zip(lines, lines[1:], lines[2:], strict=False), start=1):
                if before.strip() and after.strip() and len(words.split()) == 1:
                    found.append(f"{source.path}:{line + number}: the line has one word: {words.strip()}")
    return found
