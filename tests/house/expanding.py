"""What a migration does that the code of the last release can't live with: a release expands the schema, and a later one contracts it."""

import ast
from collections.abc import Iterator

from tests.house.limits import Function
from tests.house.source import Source

MARK = "CONTRACTS"  # a text: what the migration takes away, and since which release nothing uses it
DESTRUCTIVE = {"drop_table", "drop_column", "rename_table", "drop_constraint"}
BINDING = {"create_unique_constraint", "create_foreign_key", "create_check_constraint", "create_primary_key"}
ALTERING = {"new_column_name", "type_", "nullable"}
WORDS = ("DROP ", "RENAME ", "ALTER ")


def is_marked(source: Source) -> bool:
    """Whether the migration says what it contracts."""
    targets = [(node.targets[0], node.value) for node in source.tree.body if isinstance(node, ast.Assign)]
    return any(
        isinstance(name, ast.Name) and name.id == MARK and isinstance(value, ast.Constant) and len(str(value.value)) > 20
        for name, value in targets
    )


def contractions(source: Source) -> list[str]:
    """The calls in `upgrade`, and in functions that it may call, that the old code may not survive."""
    if is_marked(source):
        return []
    bodies = [node for node in source.tree.body if isinstance(node, Function) and node.name != "downgrade"]
    own = {table for body in bodies for table in _created(body)}
    return [f"{source.path}:{call.lineno}: {ast.unparse(call)[:80]}" for body in bodies for call in _calls(body) if _contracts(call, own)]


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (call for call in ast.walk(node) if isinstance(call, ast.Call))


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _created(body: ast.AST) -> Iterator[str]:
    """The tables that the migration itself makes, which no older code knows."""
    return (_text(call.args[0]) for call in _calls(body) if _name(call) == "create_table" and call.args)


def _text(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ""


def _keywords(call: ast.Call) -> dict[str, ast.expr]:
    return {str(keyword.arg): keyword.value for keyword in call.keywords}


def _contracts(call: ast.Call, own_tables: set[str]) -> bool:
    name, given = _name(call), _keywords(call)
    if any(_text(argument) in own_tables for argument in call.args[:2]):
        return False
    if name == "add_column":
        return any(_needs_value(column) for column in _calls(call) if _name(column) == "Column")
    if name == "alter_column":
        return bool(ALTERING & given.keys()) and _truth(given.get("nullable")) is not True
    if name == "create_index":
        return _truth(given.get("unique")) is True
    if name in ("execute", "text", "exec_driver_sql"):
        return any(_text(argument).strip().upper().startswith(WORDS) for argument in call.args)
    return name in DESTRUCTIVE | BINDING


def _needs_value(column: ast.Call) -> bool:
    given = _keywords(column)
    return _truth(given.get("nullable")) is False and "server_default" not in given


def _truth(node: ast.expr | None) -> object:
    return node.value if isinstance(node, ast.Constant) else None
