"""Every regular expression of the product: the objects that its modules hold, and those that its functions make."""

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.house.automata import SEARCHING
from tests.house.source import Source

METHODS = SEARCHING | {"match", "fullmatch"}
DEPTH_MAX = 3


@dataclass(frozen=True)
class Regex:
    """One expression. `where`: its module and name, or path and line. `method`: the one of `re` that costs most of those used on it."""

    where: str
    pattern: str | bytes
    flags: int
    method: str


@cache
def regexes(sources: tuple[Source, ...]) -> tuple[list[Regex], list[str]]:
    """All of them, and the places where the pattern is not known before the call."""
    used = _methods(sources)
    found, unknown = [], []
    for source in sources:
        if not any(isinstance(node, ast.Import) and any(alias.name == "re" for alias in node.names) for node in ast.walk(source.tree)):
            continue
        module = vars(importlib.import_module(source.module))
        found += _held(source.module, module, used)
        for call in _inside_functions(source.tree):
            pattern = _text(call.args[0], module) if call.args else None
            if pattern is None:
                unknown.append(f"{source.path}:{call.lineno}")
            else:
                method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
                found.append(
                    Regex(f"{source.path}:{call.lineno}", pattern, _flags(call, module), method if method in METHODS else "search")
                )
    return found, unknown


def _held(module: str, members: Mapping[str, Any], used: Mapping[str, set[str]]) -> Iterator[Regex]:
    for name, value in members.items():
        for pattern, methods in _patterns(value, 0):
            how = methods or used.get(f"{module}.{name}", set())
            method = "fullmatch" if how == {"fullmatch"} else "match" if how and how <= {"match", "fullmatch"} else "search"
            yield Regex(f"{module}.{name}", pattern.pattern, pattern.flags, method)


def _patterns(value: Any, depth: int) -> Iterator[tuple["re.Pattern[Any]", set[str]]]:
    """Those in a value; with the method where the value is a bound one."""
    owner = getattr(value, "__self__", None)
    if isinstance(value, re.Pattern):
        yield value, set()
    elif isinstance(owner, re.Pattern):
        yield owner, {value.__name__}
    elif depth < DEPTH_MAX and isinstance(value, dict):
        for each in (*value.keys(), *value.values()):
            yield from _patterns(each, depth + 1)
    elif depth < DEPTH_MAX and isinstance(value, list | tuple | set | frozenset):
        for each in value:
            yield from _patterns(each, depth + 1)


def _methods(sources: Iterable[Source]) -> Mapping[str, set[str]]:
    """The methods that are called on each name (`module.NAME`); a name that is used in any other way may be searched with."""
    used: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        origin = {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in ast.walk(source.tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        called = set()
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Attribute) and node.attr in METHODS and isinstance(node.value, ast.Name | ast.Attribute):
                used[_origin(node.value, source, origin)].add(node.attr)
                called.add(node.value)
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load) and node not in called:
                used[_origin(node, source, origin)].add("search")
    return used


def _origin(node: ast.Name | ast.Attribute, source: Source, origin: Mapping[str, str]) -> str:
    if isinstance(node, ast.Name):
        return origin.get(node.id, f"{source.module}.{node.id}")
    return f"{origin.get(node.value.id, node.value.id) if isinstance(node.value, ast.Name) else ''}.{node.attr}"


def _inside_functions(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls of `re` where a module is not made but used."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)]
    for call in {call for function in functions for call in ast.walk(function) if isinstance(call, ast.Call)}:
        function = call.func
        named = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "re"
        if named and function.attr in METHODS | {"compile"}:
            yield call


def _text(node: ast.expr, module: Mapping[str, Any]) -> str | bytes | None:
    """What the argument says; text that is escaped when it is put in stands as one letter."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [_part(part, module) for part in node.values]
        return None if None in parts else "".join(part for part in parts if part is not None)
    return None


def _part(node: ast.expr, module: Mapping[str, Any]) -> str | None:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if not isinstance(node, ast.FormattedValue):
        return None
    value = node.value
    if isinstance(value, ast.Name) and isinstance(module.get(value.id), str):
        return str(module[value.id])
    escaped = isinstance(value, ast.Call) and ast.unparse(value.func) == "re.escape"
    return "x" if escaped else None


def _flags(call: ast.Call, module: Mapping[str, Any]) -> int:
    flags = 0
    for node in (*call.args[1:], *(keyword.value for keyword in call.keywords)):
        for each in ast.walk(node):
            if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id == "re":
                flags |= int(getattr(re, each.attr))
    return flags
