"""Who may make a Grant or a Delegation: found in the syntax trees, since a type can't forbid it."""

import ast
from collections.abc import Iterator

from tests.house.source import Source

GRANT_MAKER = "policies.authority"
DELEGATION_MAKERS = ("policies.callers", "policies.delegation.grants")  # the root of a chain; one read back from its row
NARROWER = "policies.delegation.chain"
AUTHORITY = {"scope", "path", "not_after", "depth_max"}  # the fields of a Delegation that carry authority


def _parents(tree: ast.Module) -> dict[ast.AST, ast.AST]:
    return {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}


def _is(node: ast.AST, name: str) -> bool:
    return (isinstance(node, ast.Name) and node.id == name) or (isinstance(node, ast.Attribute) and node.attr == name)


def _annotations(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        for field in ("annotation", "returns"):
            if isinstance(found := getattr(node, field, None), ast.AST):
                yield from ast.walk(found)


def _harmless(node: ast.AST, parents: dict[ast.AST, ast.AST]) -> bool:
    """Naming the class in a pattern, in isinstance, in a union or as a type argument makes no instance."""
    parent = parents[node]
    if isinstance(parent, ast.Tuple):
        node, parent = parent, parents[parent]
    if isinstance(parent, ast.Call):
        return _is(parent.func, "isinstance") and len(parent.args) == 2 and parent.args[1] is node
    if isinstance(parent, ast.Attribute):
        return parent.attr == "__name__"
    return isinstance(parent, ast.MatchClass | ast.BinOp | ast.Subscript | ast.ImportFrom)


def makers_of(name: str, source: Source) -> list[str]:
    """Every use of the class `name` that could make an instance: a call, an alias, a reference that is handed on."""
    parents = _parents(source.tree)
    typed = set(_annotations(source.tree))
    problems = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.alias) and node.name == name and node.asname not in (None, name):
            problems.append(f"{source.path}: {name} is imported under another name")
        if _is(node, name) and node not in typed and not _harmless(node, parents):
            problems.append(f"{source.path}:{getattr(node, 'lineno', 0)}: {name} is made or handed on here")
    return problems


def grants_made(source: Source) -> list[str]:
    if source.module in (GRANT_MAKER, "policies.delegation.rulings"):
        return []
    return makers_of("Grant", source) + copies(source, "grant", {"delegation", "decision"})


def delegations_made(source: Source) -> list[str]:
    if source.module == NARROWER:
        return []
    made = [] if source.module in DELEGATION_MAKERS else makers_of("Delegation", source)
    return made + copies(source, "delegation", AUTHORITY)


def copies(source: Source, noun: str, fields: set[str]) -> list[str]:
    """Calls of `dataclasses.replace` on something called `noun`, or with one of its fields, or with fields nobody can see.

    The registry can't import either class, and has a field called `delegation` of its own.
    """
    problems: list[str] = []
    if source.module.startswith("registry."):
        return problems
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and node.args and (_is(node.func, "replace") or _is(node.func, "__replace__")):
            of_strings = (
                isinstance(node.func, ast.Attribute) and not _is(node.func.value, "dataclasses") and not _is(node.func.value, "copy")
            )
            subject = ast.unparse(node.args[0]).rpartition(".")[2].lower()
            given = {keyword.arg for keyword in node.keywords}
            if not of_strings and (subject == noun or given & fields or None in given):
                problems.append(f"{source.path}:{node.lineno}: a copy of a {noun} with other fields")
    return problems
