"""Walks a document: every list of tasks, every task, every expression, each with its JSON pointer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from gateway.workflows.dsl.constructs import Consumption, Input, Output
from gateway.workflows.dsl.document import Document, DoTask, ForkTask, ForTask, ListenTask, SwitchCase, SwitchTask, TaskBase, TryTask
from gateway.workflows.dsl.loading import pointer

BEFORE_INPUT: Final = frozenset({"context", "workflow", "runtime", "task"})
IN_TASK: Final = BEFORE_INPUT | {"input"}
WITH_OUTPUT: Final = IN_TASK | {"output"}
CLAIM: Final = "claim"  # `$claim`: what a task has claimed, with its fencing token

Items = Sequence[Mapping[str, TaskBase]]


class TaskList(Struct, frozen=True):
    """A list of tasks that follow each other. `variables`: those of loops and handlers around it."""

    path: str
    items: Items
    variables: frozenset[str] = frozenset()
    are_branches: bool = False


class PlacedTask(Struct, frozen=True):
    path: str
    name: str
    task: TaskBase
    variables: frozenset[str]


def task_lists(document: Document) -> Iterator[TaskList]:
    """Every list of tasks, those of extensions and functions included, each before the lists within it."""
    yield from _lists(TaskList("/do", document.do))
    for index, item in enumerate(document.use.extensions):
        for name, extension in item.items():
            at = f"/use/extensions/{index}{pointer(name)}"
            yield from _lists(TaskList(f"{at}/before", extension.before))
            yield from _lists(TaskList(f"{at}/after", extension.after))
    for name, function in document.use.functions.items():
        yield from _within(PlacedTask(f"/use/functions{pointer(name)}", name, function, frozenset()))


def tasks(document: Document) -> Iterator[PlacedTask]:
    """Every task of the document, functions included."""
    for listed in task_lists(document):
        yield from _placed(listed)
    for name, function in document.use.functions.items():
        yield PlacedTask(f"/use/functions{pointer(name)}", name, function, frozenset())


def _placed(listed: TaskList) -> Iterator[PlacedTask]:
    for index, item in enumerate(listed.items):
        for name, task in item.items():
            yield PlacedTask(f"{listed.path}/{index}{pointer(name)}", name, task, listed.variables)


def _lists(listed: TaskList) -> Iterator[TaskList]:
    yield listed
    for placed in _placed(listed):
        yield from _within(placed)


def _variables_within(placed: PlacedTask) -> frozenset[str]:
    """The variables that expressions of a task and of the tasks within it may use."""
    return placed.variables if placed.task.metadata.gateway.claim is None else placed.variables | {CLAIM}


def _within(placed: PlacedTask) -> Iterator[TaskList]:
    """The lists within one task."""
    task, path, known = placed.task, placed.path, _variables_within(placed)
    match task:
        case DoTask(do=items):
            yield from _lists(TaskList(f"{path}/do", items, known))
        case ForTask(for_=loop, do=items):
            yield from _lists(TaskList(f"{path}/do", items, known | {loop.each, loop.at}))
        case ForkTask(fork=fork):
            yield from _lists(TaskList(f"{path}/fork/branches", fork.branches, known, are_branches=True))
        case TryTask(try_=items, catch=catch):
            yield from _lists(TaskList(f"{path}/try", items, known))
            yield from _lists(TaskList(f"{path}/catch/do", catch.do, known | {catch.as_}))
        case ListenTask(foreach=each) if each is not None:
            yield from _lists(TaskList(f"{path}/foreach/do", each.do, known | {each.item, each.at}))


class PlacedExpression(Struct, frozen=True):
    """An expression and the names of the variables that it may use. `bare`: the braces may be left out."""

    path: str
    text: str
    variables: frozenset[str]
    bare: bool = True


def expressions(document: Document) -> Iterator[PlacedExpression]:
    """Every text of the document that is, or may hold, an expression."""
    outside = frozenset({"workflow", "runtime"})
    yield from _templates("/input/from", document.input.from_, outside, bare=True)
    yield from _templates("/output/as", document.output.as_, outside | {"context"}, bare=True)
    for placed in tasks(document):
        yield from _of_task(placed)
    for index, item in enumerate(document.use.extensions):
        for name, extension in item.items():
            yield from _templates(f"/use/extensions/{index}{pointer(name)}/when", extension.when, BEFORE_INPUT, bare=True)


def _of_task(placed: PlacedTask) -> Iterator[PlacedExpression]:
    task, path, known = placed.task, placed.path, _variables_within(placed)
    yield from _templates(f"{path}/if", task.if_, placed.variables | BEFORE_INPUT, bare=True)
    if (claim := task.metadata.gateway.claim) is not None:
        said = {"subject": claim.subject, "purpose": claim.purpose}
        yield from _templates(f"{path}/metadata/gateway/claim", said, placed.variables | BEFORE_INPUT, bare=False)
    yield from _of_input(path, task.input, known)
    yield from _templates(f"{path}/output/as", task.output.as_, known | IN_TASK, bare=True)
    yield from _templates(f"{path}/export/as", task.export.as_, known | WITH_OUTPUT, bare=True)
    match task:
        case SwitchTask(switch=cases):
            for index, item in enumerate(cases):
                for name, case in item.items():
                    yield from _templates(f"{path}/switch/{index}{pointer(name)}/when", case.when, known | IN_TASK, bare=True)
        case ForTask(for_=loop, while_=condition):
            yield from _templates(f"{path}/for/in", loop.in_, known | IN_TASK, bare=True)
            yield from _templates(f"{path}/while", condition, known | IN_TASK | {loop.each, loop.at}, bare=True)
        case TryTask(catch=catch):
            for member in ("when", "except_when"):
                yield from _templates(f"{path}/catch/{member}", getattr(catch, member), known | IN_TASK | {catch.as_}, bare=True)
        case ListenTask(listen=listen, foreach=each):
            yield from _of_events(f"{path}/listen/to", listen.to, known | IN_TASK)
            if each is not None:
                within = known | IN_TASK | {each.item, each.at}
                yield from _templates(f"{path}/foreach/output/as", each.output.as_, within, bare=True)
                yield from _templates(f"{path}/foreach/export/as", each.export.as_, within, bare=True)
        case _:
            body = task.model_dump(mode="json", exclude_unset=True, exclude=set(TaskBase.model_fields) | {"do", "fork"})
            yield from _templates(path, body, known | IN_TASK, bare=False)


def _of_events(path: str, wanted: Consumption, known: frozenset[str]) -> Iterator[PlacedExpression]:
    """Conditions and correlations are evaluated on an event alone; what a correlation expects is a value of the run."""
    mode = next(name for name in ("one", "all", "any") if getattr(wanted, name) is not None)
    filters = getattr(wanted, mode)
    for index, each in enumerate(filters if isinstance(filters, list) else [filters]):
        at = f"{path}/{mode}/{index}" if isinstance(filters, list) else f"{path}/{mode}"
        yield from _templates(f"{at}/with", each.with_.model_dump(exclude_unset=True), frozenset(), bare=False)
        for name, correlation in each.correlate.items():
            yield from _templates(f"{at}/correlate{pointer(name)}/from", correlation.from_, frozenset(), bare=True)
            yield from _templates(f"{at}/correlate{pointer(name)}/expect", correlation.expect, known, bare=False)
    if isinstance(wanted.until, Consumption):
        yield from _of_events(f"{path}/until", wanted.until, known)
    else:
        yield from _templates(f"{path}/until", wanted.until, frozenset(), bare=True)


def _of_input(path: str, given: Input, known: frozenset[str]) -> Iterator[PlacedExpression]:
    yield from _templates(f"{path}/input/from", given.from_, known | BEFORE_INPUT, bare=True)


def _templates(path: str, value: Any, known: frozenset[str], *, bare: bool) -> Iterator[PlacedExpression]:
    if isinstance(value, str):
        yield PlacedExpression(path, value, known, bare)
    elif isinstance(value, Mapping):
        for name, member in value.items():
            yield from _templates(path + pointer(name), member, known, bare=False)
    elif isinstance(value, list):
        for index, element in enumerate(value):
            yield from _templates(f"{path}/{index}", element, known, bare=False)


def schemas(document: Document) -> Iterator[tuple[str, Any]]:
    """Every JSON Schema of the document, or the resource that stands for it, with its path."""
    holders: list[tuple[str, Input | Output]] = [("/input", document.input), ("/output", document.output)]
    for placed in tasks(document):
        task = placed.task
        holders += [(f"{placed.path}/{name}", getattr(task, name)) for name in ("input", "output", "export")]
    for path, holder in holders:
        if holder.schema_ is not None:
            resource = holder.schema_.resource
            yield (f"{path}/schema/document", holder.schema_.document) if resource is None else (f"{path}/schema/resource", resource)


def case_targets(task: SwitchTask) -> Iterator[tuple[str, SwitchCase]]:
    for index, item in enumerate(task.switch):
        for name, case in item.items():
            yield f"/switch/{index}{pointer(name)}/then", case
