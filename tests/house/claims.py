"""Whether a test can fail at all."""

import ast
from collections.abc import Iterable

from tests.house.limits import Function
from tests.house.source import Source

CHECKERS = ("assert", "check", "expect", "verify", "raises", "fail", "warns", "must")
ORACLES = {"model_validate", "ParseDict"}  # the reference implementations refuse by raising


def _checks(function: ast.AST, checkers: frozenset[str]) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in checkers or name.lstrip("_").startswith(CHECKERS):
                return True
    return False


def _functions(source: Source) -> list[Function]:
    return [node for node in ast.walk(source.tree) if isinstance(node, Function)]


def checkers(sources: Iterable[Source]) -> frozenset[str]:
    """Names of the functions, other than tests, that assert something or call one that does."""
    functions = [one for source in sources for one in _functions(source) if not one.name.startswith("test_")]
    known = frozenset(ORACLES)
    while more := {one.name for one in functions if one.name not in known and _checks(one, known)}:
        known |= more
    return known


def empty_tests(source: Source, known: frozenset[str]) -> list[str]:
    """Test functions that neither assert, nor expect an exception, nor call one of the known checkers."""
    empty = [one for one in _functions(source) if one.name.startswith("test_") and not _checks(one, known)]
    return [f"{source.path}:{one.lineno}: {one.name} asserts nothing" for one in empty]
