"""What the DSL has and this version does not run: each is refused at upload, with its place and the reason."""

from collections.abc import Iterator

from gateway.workflows.dsl.document import (
    CallHttp,
    CallOpenApi,
    Document,
    RunTask,
    TaskBase,
)
from gateway.workflows.dsl.walk import tasks
from gateway.workflows.publishing.call_members import unused_members

Found = Iterator[tuple[str, str]]


def unsupported(document: Document) -> Found:
    """The place and the reason of everything in a document that this version does not run."""
    yield from unused_members(document)
    for placed in tasks(document):
        yield from _of_task(placed.task, placed.path)


def _of_task(task: TaskBase, path: str) -> Found:
    yield from _of_call(task, path)
    match task:
        case RunTask(run=run) if run.workflow is not None and run.workflow.version != "latest":
            yield f"{path}/run/workflow/version", "is not run; `latest`, the default version, is"


def _of_call(task: TaskBase, path: str) -> Found:
    match task:
        case CallHttp(with_=request) | CallOpenApi(with_=request):
            if request.output != "content":
                yield f"{path}/with/output", "is not known of a tool's result; `content` is"
            if request.redirect:
                yield f"{path}/with/redirect", "is not run: the gateway calls registered addresses alone"
