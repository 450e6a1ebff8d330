"""How long a file, class, function or list of parameters may get."""

import ast

from tests.house.source import Source

FILE, CLASS, FUNCTION, PARAMETERS = 400, 200, 60, 5

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _parameters(function: Function) -> list[str]:
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args)]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def long_files(source: Source) -> list[str]:
    count = len(source.text.splitlines())
    return [f"{source.path}: {count} lines, at most {FILE}"] if count > FILE else []


def long_classes(source: Source) -> list[str]:
    found = [node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef) and _lines(node) > CLASS]
    return [f"{source.path}:{node.lineno}: class {node.name} has {_lines(node)} lines, at most {CLASS}" for node in found]


def long_functions(source: Source) -> list[str]:
    found = [node for node in ast.walk(source.tree) if isinstance(node, Function) and _lines(node) > FUNCTION]
    return [f"{source.path}:{node.lineno}: {node.name} has {_lines(node)} lines, at most {FUNCTION}" for node in found]


def _command(function: Function) -> bool:
    """A command of the command line, whose parameters are its options."""
    given = function.args
    return any("typer." in ast.unparse(one.annotation) for one in (*given.args, *given.kwonlyargs) if one.annotation)


def many_parameters(source: Source) -> list[str]:
    functions = [node for node in ast.walk(source.tree) if isinstance(node, Function) and not _command(node)]
    found = [node for node in functions if len(_parameters(node)) > PARAMETERS]
    return [
        f"{source.path}:{node.lineno}: {node.name} has {len(_parameters(node))} positional parameters, at most {PARAMETERS}"
        for node in found
    ]


def tupled_parameters(source: Source) -> list[str]:
    """Parameters such as `url_and_body: tuple[str, bytes]`, which dodge the bound on positional parameters."""
    functions = [node for node in ast.walk(source.tree) if isinstance(node, Function)]
    return [
        f"{source.path}:{node.lineno}: {node.name} takes {one.arg} as a tuple; pass keyword-only parameters"
        for node in functions
        for one in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        if "_and_" in one.arg and one.annotation is not None and ast.unparse(one.annotation).startswith("tuple[")
    ]
