"""Whether a test can fail at all: it asserts something itself, or calls a function of the tests that does."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.house.limits import Function
from tests.house.source import Source

RAISING = {"pytest.raises", "pytest.fail", "pytest.warns", "raises"}
Checkers = frozenset[tuple[str, str]]  # module and function; for a method "" and its name, which is then a checker in every class


@dataclass
class _Names:
    """What the names of one module of tests stand for: module and function of the tests, or an imported module."""

    functions: dict[str, tuple[str, str]] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)


def _names_in(source: Source) -> _Names:
    found = _Names()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.modules[alias.asname or alias.name.partition(".")[0]] = alias.name
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found.functions[alias.asname or alias.name] = (node.module, alias.name)
                found.modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    for statement in ast.walk(source.tree):
        if isinstance(statement, Function):
            found.functions[statement.name] = (source.module, statement.name)
    return found


def _root(node: ast.expr) -> str:
    """The name that an expression such as `peer.log.until` begins with; none where it begins with something else."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _targets(called: ast.expr, names: _Names) -> Iterator[tuple[str, str]]:
    """What a call may be a call of, as `Checkers` has it."""
    if isinstance(called, ast.Name):
        yield names.functions.get(called.id, ("", ""))
    elif isinstance(called, ast.Attribute):
        module = names.modules.get(_root(called.value))
        is_from_tests = module is not None and module.startswith("tests.")
        if is_from_tests:
            yield module or "", called.attr
        if module is None or is_from_tests:
            yield "", called.attr


def _asserts(function: ast.AST, names: _Names, known: Checkers) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call) and (ast.unparse(node.func) in RAISING or any(one in known for one in _targets(node.func, names))):
            return True
    return False


def _methods(source: Source) -> set[ast.AST]:
    return {node for owner in ast.walk(source.tree) if isinstance(owner, ast.ClassDef) for node in ast.walk(owner)}


def checkers(tests: Iterable[Source], product: Iterable[Source] = ()) -> Checkers:
    """The functions and methods of the tests, other than tests, that assert something or call one that does.

    The class of an object is not known here. A method is a checker if all methods of its name are in tests and each of them asserts.
    """
    helpers = defaultdict(list)
    for source in tests:
        names, methods = _names_in(source), _methods(source)
        for node in ast.walk(source.tree):
            if isinstance(node, Function) and not node.name.startswith("test_"):
                helpers["" if node in methods else source.module, node.name].append((node, names))
    for method in {node.name for source in product for node in _methods(source) if isinstance(node, Function)}:
        helpers.pop(("", method), None)
    known: Checkers = frozenset()
    while more := {
        key for key, functions in helpers.items() if key not in known and all(_asserts(node, names, known) for node, names in functions)
    }:
        known |= more
    return known


def empty_tests(source: Source, known: Checkers) -> list[str]:
    """Test functions that neither assert, nor expect an exception, nor call one of the known checkers."""
    if not source.path.rpartition("/")[2].startswith("test_"):
        return []  # pytest collects nothing from it
    names = _names_in(source)
    tests = [node for node in ast.walk(source.tree) if isinstance(node, Function) and node.name.startswith("test_")]
    return [f"{source.path}:{one.lineno}: {one.name} asserts nothing" for one in tests if not _asserts(one, names, known)]
