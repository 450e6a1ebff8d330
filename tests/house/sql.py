"""The SQL of the product, in texts and in calls of SQLAlchemy, for the rule that it reads columns and no spelling of JSON."""

import ast
import re
from collections.abc import Iterator

from tests.house.source import Source

_STATEMENT = re.compile(r"\s*(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH)\s")
_TEXT_MATCH = re.compile(r"\b(?:LIKE|ILIKE|GLOB|SIMILAR TO|REGEXP|instr|strpos|position|json_extract)\b|->|\s~\*?\s", re.IGNORECASE)
_MATCHING_METHODS = {"like", "ilike", "contains", "regexp_match", "icontains", "istartswith", "iendswith", "endswith", "startswith"}


def statements(source: Source) -> Iterator[tuple[int, str]]:
    """The line and text of each literal that begins as a statement of SQL; the parts of an f-string count by themselves."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and _STATEMENT.match(node.value):
            yield node.lineno, node.value


def queries(source: Source) -> int:
    """How many calls of SQLAlchemy's `select`, `update`, `delete` and `insert` there are."""
    calls = (node.func for node in ast.walk(source.tree) if isinstance(node, ast.Call))
    return sum(isinstance(func, ast.Name) and func.id in {"select", "update", "delete", "insert"} for func in calls)


def text_matches(source: Source) -> list[str]:
    """Places where SQL looks into a text."""
    found = [f"{source.path}:{line}: {text.strip()[:60]}" for line, text in statements(source) if _TEXT_MATCH.search(text)]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and _is_method_of_column(node.func):
            found.append(f"{source.path}:{node.lineno}: {ast.unparse(node)[:60]}")
    return found


def _is_method_of_column(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in _MATCHING_METHODS and _is_column(node.value)


def _is_column(node: ast.expr) -> bool:
    """`table.c.name`, as SQLAlchemy writes a column."""
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "c"
