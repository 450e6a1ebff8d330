"""Which test shows which attack: read from the comments `# attack TOK-12` and docstrings of the tests, and the catalogue they are of."""

import ast
import io
import json
import re
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.house.source import Source, python

AREAS = (
    "TOK",
    "OAU",
    "DLG",
    "TEN",
    "SSR",
    "REG",
    "PRO",
    "AVL",
    "HOOK",
    "VLT",
    "INJ",
    "HIT",
    "WFL",
    "BRD",
    "MEM",
    "CST",
    "ADM",
    "LOG",
    "BOX",
    "SUP",
)
ID = re.compile(rf"\b(?:{'|'.join(AREAS)})-\d{{2}}\b")
MARK = re.compile(r"\battacks? (?=[A-Z]+-\d{2}\b)")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Attack:
    """`not_yet` says why nothing shows it so far, and is empty where tests do."""

    id: str
    area: str
    title: str
    expected: str
    not_yet: str = ""


@dataclass(frozen=True)
class Marks:
    """`tests`: id of an attack to ids of tests as pytest takes them; `lost`: places of marks that are of no test."""

    tests: Mapping[str, tuple[str, ...]]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class _Test:
    name: str  # with its class
    first: int  # line of its first decorator
    last: int


def read_catalogue() -> tuple[Attack, ...]:
    lines = (Path(__file__).parent / "catalogue.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(Attack(**json.loads(line)) for line in lines)


def _tests_in(body: list[ast.stmt], prefix: str = "") -> Iterator[_Test]:
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _tests_in(node.body, f"{prefix}{node.name}::")
        elif isinstance(node, Function) and node.name.startswith("test_"):
            first = min(each.lineno for each in (node, *node.decorator_list))
            yield _Test(prefix + node.name, first, node.end_lineno or node.lineno)


def _marks_in(source: Source) -> Iterator[tuple[int, str]]:
    """Line and text of each mark: comments, and strings that stand alone."""
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        if token.type == tokenize.COMMENT and MARK.search(token.string):
            yield token.start[0], token.string
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and MARK.search(str(node.value.value)):
            yield node.lineno, str(node.value.value)


def _test_at_line(tests: list[_Test], line: int, lines: list[str]) -> _Test | None:
    """The test that the line is in, or that begins right after it."""
    inside = [test for test in tests if test.first <= line <= test.last]
    while not inside and line < len(lines) and lines[line - 1].lstrip().startswith("#"):
        line += 1
        inside = [test for test in tests if test.first == line]
    return inside[0] if inside else None


def find_marks(sources: tuple[Source, ...] | None = None) -> Marks:
    found: dict[str, dict[str, None]] = defaultdict(dict)
    lost = []
    for source in sources if sources is not None else [each for each in python("tests") if "/test_" in each.path]:
        tests, lines = list(_tests_in(source.tree.body)), source.text.splitlines()
        for line, text in _marks_in(source):
            test = _test_at_line(tests, line, lines)
            if test is None:
                lost.append(f"{source.path}:{line}")
                continue
            for attack in ID.findall(text):
                found[attack][f"{source.path}::{test.name}"] = None
    return Marks({attack: tuple(sorted(tests)) for attack, tests in sorted(found.items())}, tuple(lost))
