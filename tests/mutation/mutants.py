"""Small changes to a module that its tests should notice: comparisons, connectives, constants, returns, raises and calls."""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMPUTED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
QUIET = {"_log", "log", "logger", "_LOG", "LOG"}  # what is written to the log is not the subject here
Change = Callable[[ast.AST], ast.AST | None]  # the node in place of another, None where it is to go


@dataclass(frozen=True)
class Mutant:
    """`place`: the number of the changed node in the order of ast.walk; `kind` and `line` are for readers."""

    line: int
    kind: str
    place: int
    change: Change

    def apply(self, source: str) -> ast.Module:
        tree = ast.parse(source)
        target = list(ast.walk(tree))[self.place]
        replaced = _Replaced(target, self.change(copy.deepcopy(target))).visit(tree)
        return ast.fix_missing_locations(replaced)


class _Replaced(ast.NodeTransformer):
    def __init__(self, target: ast.AST, substitute: ast.AST | None) -> None:
        self._target = target
        self._substitute = substitute

    def visit(self, node: ast.AST) -> ast.AST:
        if node is self._target:
            return ast.copy_location(self._substitute or ast.Pass(), node)
        found: ast.AST = self.generic_visit(node)
        return found


def find_mutants(source: str) -> list[Mutant]:
    tree = ast.parse(source)
    skipped = {id(inner) for node in ast.walk(tree) for outer in _without_effect(node) for inner in ast.walk(outer)}
    found = []
    for place, node in enumerate(ast.walk(tree)):
        if id(node) not in skipped:
            found += [Mutant(getattr(node, "lineno", 0), kind, place, change) for kind, change in _changes(node)]
    return sorted(found, key=lambda mutant: (mutant.line, mutant.place, mutant.kind))


def _without_effect(node: ast.AST) -> Iterator[ast.AST]:
    """What has no effect of its own: annotations, docstrings, texts for people, what is there for the type checker alone."""
    if _is_for_types(node):
        yield node
    elif isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
        yield node.annotation
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is not None:
        yield node.returns
    elif isinstance(node, ast.JoinedStr):
        yield from (part for part in node.values if isinstance(part, ast.Constant))
    elif isinstance(node, ast.Expr) and (isinstance(node.value, ast.Constant) or _is_log_call(node.value) or _repeats_message(node.value)):
        yield node
    elif isinstance(node, ast.ClassDef):
        yield from node.decorator_list


def _is_for_types(node: ast.AST) -> bool:
    """A type variable, the texts of a Literal, a function of a Protocol."""
    match node:
        case ast.Call(func=ast.Name(id="TypeVar")) | ast.Subscript(value=ast.Name(id="Literal")):
            return True
        case ast.FunctionDef(body=[*_, last]) | ast.AsyncFunctionDef(body=[*_, last]):
            return isinstance(last, ast.Expr) and isinstance(last.value, ast.Constant) and last.value.value is ...
    return False


def _is_log_call(value: ast.AST) -> bool:
    call = value.func if isinstance(value, ast.Call) else None
    return isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name) and call.value.id in QUIET


def _repeats_message(value: ast.AST) -> bool:
    """`super().__init__(…)` with what an exception has anyway."""
    return ast.unparse(value).startswith("super().__init__(")


def _changes(node: ast.AST) -> Iterator[tuple[str, Change]]:
    yield from _changes_of_expression(node)
    yield from _changes_of_value(node)


def _changes_of_expression(node: ast.AST) -> Iterator[tuple[str, Change]]:
    match node:
        case ast.Compare(ops=operators):
            for index, operator in enumerate(operators):
                yield (
                    _name(operator),
                    lambda found, index=index, operator=operator: _with_operator(found, index, COMPARED[type(operator)]()),
                )
        case ast.BoolOp(op=ast.And()):
            yield "and -> or", lambda found: ast.BoolOp(ast.Or(), found.values)
        case ast.BoolOp():
            yield "or -> and", lambda found: ast.BoolOp(ast.And(), found.values)
        case ast.UnaryOp(op=ast.Not()):
            yield "not removed", lambda found: found.operand
        case ast.BinOp(op=operator) if type(operator) in COMPUTED:
            yield _name(operator), lambda found, operator=operator: ast.BinOp(found.left, COMPUTED[type(operator)](), found.right)
        case ast.If(test=ast.Name() | ast.Attribute() | ast.Call()) | ast.IfExp(test=ast.Name() | ast.Attribute() | ast.Call()):
            yield "condition inverted", _with_inverted_condition


def _changes_of_value(node: ast.AST) -> Iterator[tuple[str, Change]]:
    match node:
        case ast.Constant(value=bool()):
            yield "bool", lambda found: ast.Constant(not found.value)
        case ast.Constant(value=int() | float()):
            yield "number + 1", lambda found: ast.Constant(found.value + 1)
        case ast.Constant(value=str(text)) if " " not in text:
            yield "text", lambda found: ast.Constant(f"{found.value}X")
        case ast.Return(value=value) if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            yield "returns None", lambda _: ast.Return(ast.Constant(None))
        case ast.Raise():
            yield "raise removed", lambda _: None
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield "call removed", lambda _: None


def _name(operator: ast.AST) -> str:
    changed = {**COMPARED, **COMPUTED}[type(operator)]  # type: ignore[index,arg-type]  # only those of the tables come here
    return f"{type(operator).__name__} -> {changed.__name__}"


def _with_operator(found: ast.Compare, index: int, operator: ast.cmpop) -> ast.AST:
    found.ops[index] = operator
    return found


def _with_inverted_condition(found: ast.If | ast.IfExp) -> ast.AST:
    found.test = ast.UnaryOp(ast.Not(), found.test)
    return found
