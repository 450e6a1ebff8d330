"""Deterministic steps: they and everything within them compute, and neither an agent nor a person has a say in their output."""

from collections.abc import Iterator, Sequence

from gateway.workflows.dsl.document import COMPOSITE, CallA2a, CallFunction, Document, RunTask, TaskBase, kind_of
from gateway.workflows.dsl.loading import pointer
from gateway.workflows.dsl.walk import PlacedTask, tasks

DETERMINISTIC = "deterministic"
COMPUTE = "gateway.compute"
REASONING = ("gateway.plan", "gateway.agent")
PEOPLE = ("gateway.approve", "gateway.choose", "gateway.form")


def deterministic_tasks(document: Document) -> list[PlacedTask]:
    """Every task that is deterministic by itself, by a task around it, or as part of a function or an extension of such a task.

    An extension with a condition may not apply; the step of its task is then checked when it runs.
    """
    everything = list(tasks(document))
    roots = {each.path for each in everything if each.task.metadata.gateway.kind == DETERMINISTIC}
    while True:
        found = [each for each in everything if any(is_within(each.path, root) for root in roots)]
        called = {each.task.call for each in found if isinstance(each.task, CallFunction)}
        more = {f"/use/functions{pointer(name)}" for name in called if name in document.use.functions}
        more = (more | _extensions_of(document, found)) - roots
        if not more:
            return found
        roots |= more


def _extensions_of(document: Document, found: Sequence[PlacedTask]) -> set[str]:
    """The places of extensions that apply to one of the tasks whatever its data is."""
    kinds = {(kind_of(each.task) or "").partition(" ")[0] for each in found if not each.path.startswith("/use/extensions/")}
    kinds |= {"composite"} if kinds & set(COMPOSITE) else set()
    kinds |= {"all"} if kinds else set()
    return {
        f"/use/extensions/{index}{pointer(name)}"
        for index, item in enumerate(document.use.extensions)
        for name, extension in item.items()
        if extension.when is None and extension.extend in kinds
    }


def is_within(path: str, root: str) -> bool:
    """Whether a place is the other one, or within it."""
    return path == root or path.startswith(f"{root}/")


def determinism_problems(document: Document) -> Iterator[tuple[str, str]]:
    """What deterministic steps may not do, each with its place and the reason."""
    for placed in deterministic_tasks(document):
        if (reason := _reason(placed.task)) is not None:
            is_marked = placed.task.metadata.gateway.kind == DETERMINISTIC
            place, words = (f"{placed.path}/metadata/gateway/kind", "is") if is_marked else (placed.path, "is within a step that is")
            yield place, f"{words} deterministic, and the step {reason}"


def _reason(task: TaskBase) -> str | None:
    match task:
        case CallA2a() | CallFunction(call="gateway.plan" | "gateway.agent"):
            return "asks an agent"
        case CallFunction(call=name) if name in PEOPLE:
            return "asks people"
        case RunTask(run=run) if run.workflow is not None:
            return "runs another workflow, which may ask agents"
    return "is an ai step" if task.metadata.gateway.kind == "ai" else None


def paths_of(placed: Sequence[PlacedTask]) -> frozenset[str]:
    """The places of tasks."""
    return frozenset(each.path for each in placed)
