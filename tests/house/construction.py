"""Objects are complete when their constructor returns: no part of the composition is set on them later."""

import ast
from collections.abc import Iterable, Iterator

from tests.house.limits import Function
from tests.house.source import Source

# Objects that code outside their own area may set attributes of, by the name of the variable, with the reason.
COLLECTORS = {
    "error": "an exception collects facts on its way up",
    "fault": "an exception collects facts on its way up",
    "refused": "an exception collects facts on its way up",
    "plain": "an exception collects facts on its way up",
    "missing": "an exception gets its cause",
    "request_trace": "the record of one request is filled while the request runs",
}
# Objects of libraries whose interface is an attribute, by module and variable.
LIBRARY_OBJECTS = {
    ("gateway.calls.limits.open_streams", "weakref.finalize(stream, _keep_until_finalized, self)"): "weakref: atexit",
    ("gateway.cli.mcp_client", "logging.getLogger(name)"): "logging: propagate",
    ("gateway.server.settings_sources", "source"): "pydantic-settings: the environment that a source reads",
    ("gateway.storage.database", "connection"): "sqlite3: isolation_level",
    ("gateway.storage.files.backups.archive", "info"): "tarfile: size and mode of a part",
    ("gateway.telemetry.logs", "library"): "logging: handlers and propagate",
    ("gateway.telemetry.logs", "root"): "logging: handlers",
    ("gateway.telemetry.export_log", "library"): "logging: handlers and propagate",
    ("gateway.telemetry.worker_figures", "values"): "prometheus_client: the class of its values",
}
# Classes whose methods define attributes that their constructor does not.
DEFINED_LATER = {
    ("gateway.ingress.http.event_streams", "_ReceivingClient"): "a context manager, whose timers run only within the block",
}
COMPOSITION = ("gateway.server.composition", "gateway.server.app")
MUTATORS = {"append", "extend", "insert", "update", "setdefault"}


def _assigned(node: ast.AST) -> Iterator[ast.Attribute]:
    """The attributes that one statement assigns."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = list(node.targets)
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.For | ast.AsyncFor):
        targets = [node.target]
    elif isinstance(node, ast.With | ast.AsyncWith):
        targets = [item.optional_vars for item in node.items if item.optional_vars is not None]
    while targets:
        target = targets.pop()
        if isinstance(target, ast.Tuple | ast.List):
            targets += target.elts
        elif isinstance(target, ast.Attribute):
            yield target


def _is_own(target: ast.Attribute) -> bool:
    return isinstance(target.value, ast.Name) and target.value.id in ("self", "cls")


def _area(source: Source) -> str:
    """The folder of the second level, such as `adapters.mcp_client`."""
    return ".".join(source.module.split(".")[:2])


def _own_attributes(node: ast.AST) -> set[str]:
    return {target.attr for each in ast.walk(node) for target in _assigned(each) if _is_own(target)}


def _classes(source: Source) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef))


def _fields(node: ast.ClassDef) -> set[str]:
    return {each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)}


def declared_attributes(sources: Iterable[Source]) -> dict[str, set[str]]:
    """The names of the attributes that the classes of each area declare."""
    declared: dict[str, set[str]] = {}
    for source in sources:
        for node in _classes(source):
            declared.setdefault(_area(source), set()).update(_fields(node), _own_attributes(node))
    return declared


def foreign_assignments(source: Source, declared: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    """(receiver, problem) for each attribute that is set outside the area of its class, on a private name, or by the composition."""
    for node in ast.walk(source.tree):
        for target in (target for target in _assigned(node) if not _is_own(target)):
            is_state = target.attr in declared.get(_area(source), ()) and not target.attr.startswith("_")
            if not is_state or source.module.startswith(COMPOSITION):
                yield (
                    ast.unparse(target.value),
                    f"{source.path}:{node.lineno}: sets {ast.unparse(target)} of a finished object; pass it to the constructor",
                )


def set_from_outside(sources: Iterable[Source]) -> tuple[list[str], set[object]]:
    """The problems, and the entries of COLLECTORS and LIBRARY_OBJECTS that allow nothing."""
    sources = tuple(sources)
    declared, problems, unused = declared_attributes(sources), [], {*COLLECTORS, *LIBRARY_OBJECTS}
    for source in sources:
        for receiver, problem in foreign_assignments(source, declared):
            if receiver in COLLECTORS or (source.module, receiver) in LIBRARY_OBJECTS:
                unused -= {receiver, (source.module, receiver)}
            else:
                problems.append(problem)
    return problems, unused


def changed_by_composition(source: Source) -> list[str]:
    """Lists and mappings of other objects that the composition changes, instead of calling a method of the object."""
    if not source.module.startswith(COMPOSITION):
        return []
    calls = (node for node in ast.walk(source.tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute))
    return [
        f"{source.path}:{node.lineno}: {ast.unparse(node.func)} changes an attribute of another object"
        for node in calls
        if isinstance(node.func, ast.Attribute)
        and node.func.attr in MUTATORS
        and isinstance(node.func.value, ast.Attribute)
        and not _is_own(node.func.value)
    ]


def late_attributes(source: Source) -> list[str]:
    """Attributes that a class defines neither in its body, nor in its constructor, nor in a method that the constructor calls."""
    problems = []
    for node in _classes(source):
        methods = {each.name: each for each in node.body if isinstance(each, Function)}
        if (source.module, node.name) in DEFINED_LATER or "__init__" not in methods:
            continue
        called = [methods[name] for name in _methods_called(methods["__init__"]) if name in methods]
        defined = _fields(node).union(*map(_own_attributes, (methods["__init__"], *called)))
        problems += [f"{source.path}: {node.name}.{name} is not defined by the constructor" for name in _own_attributes(node) - defined]
    return sorted(problems)


def _methods_called(function: Function) -> set[str]:
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return {call.attr for call in calls if isinstance(call, ast.Attribute) and _is_own(call)}


def empty_callbacks(source: Source) -> list[str]:
    """Callbacks that are None when the object is constructed, to be set later."""
    return [
        f"{source.path}:{each.lineno}: {ast.unparse(each.target)} is a callback that is set later; take it as a parameter"
        for node in _classes(source)
        for each in ast.walk(node)
        if isinstance(each, ast.AnnAssign)
        and isinstance(each.target, ast.Attribute)
        and ast.unparse(each.annotation).startswith("Callable")
        and isinstance(each.value, ast.Constant)
        and each.value.value is None
    ]


def setters(source: Source) -> list[str]:
    """Methods that keep a callback which the constructor should take, such as `set_hook`."""
    return [
        f"{source.path}:{each.lineno}: {node.name}.{method.name} keeps a callback; take it as a parameter of the constructor"
        for node in _classes(source)
        for method in node.body
        if isinstance(method, Function) and method.name != "__init__"
        for each in ast.walk(method)
        if isinstance(each, ast.Assign) and isinstance(each.value, ast.Name) and each.value.id in _callbacks(method)
        if any(_assigned(each))
    ]


def _callbacks(method: Function) -> set[str]:
    parameters = (*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs)
    return {each.arg for each in parameters if each.annotation is not None and "Callable" in ast.unparse(each.annotation)}
