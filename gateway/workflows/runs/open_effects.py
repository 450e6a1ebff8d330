"""Effects that a stopped run has left open: steps that a document can undo and that were not, and steps of unknown outcome."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import UNSET, Struct
from sqlalchemy import select

from adapters.task import TaskState
from gateway.storage.database import Database
from gateway.storage.tables import tasks as task_table
from gateway.tasks.log import TaskRow, to_rfc3339, to_task_row
from gateway.workflows.dsl.document import Document
from gateway.workflows.dsl.walk import tasks
from gateway.workflows.interpreter.compensations import ENDED, is_undoing, undone_step
from gateway.workflows.interpreter.effects import StepKey
from gateway.workflows.interpreter.errors import OUTCOME_UNKNOWN
from gateway.workflows.runs.journal import CALL, StepRow
from gateway.workflows.runs.store import RunKey

STOPPED: Final = (TaskState.FAILED, TaskState.CANCELED, TaskState.REJECTED)
CHILDREN_MAX: Final = 10_000


class OpenEffect(Struct, frozen=True):
    """A step whose effect stays. `function` undoes it, where the document names one; `why` says why it did not."""

    step: str
    target: str
    task_id: str
    function: str
    why: str


def has_stopped(task: TaskRow) -> bool:
    """Whether a run ended without completing."""
    return task.state in STOPPED


async def children_of(database: Database, run: RunKey) -> list[TaskRow]:
    """The tasks that the steps of a run caused, the oldest first."""
    mine = (task_table.c.tenant == run.tenant) & (task_table.c.parent_id == run.id)
    query = select(task_table).where(mine).order_by(task_table.c.created, task_table.c.id).limit(CHILDREN_MAX)
    return await database.read(lambda connection: [to_task_row(row) for row in connection.execute(query)])


def open_effects(document: Document | None, steps: Sequence[StepRow], children: Sequence[TaskRow]) -> list[OpenEffect]:
    """The effects that a run has left open, in the order of its steps."""
    functions = {} if document is None else {each.path: each.task.metadata.gateway.compensate for each in tasks(document)}
    undone = {key: str(step.result.value) for step in steps if (key := undone_step(step.step_key, ENDED)) is not None}
    found = []
    for step in steps:
        if step.kind == CALL and not is_undoing(step.step_key) and (effect := _of_step(step, functions, undone)) is not None:
            found.append(effect)
    lost = lost_tasks(steps, children)
    return found + [OpenEffect("", f"agent {task.agent}", task.id, "", "it was at work when the run was stopped") for task in lost]


def can_undo(document: Document) -> bool:
    """Whether a document names a function that undoes a step."""
    return any(each.task.metadata.gateway.compensate for each in tasks(document))


def lost_tasks(steps: Sequence[StepRow], children: Sequence[TaskRow]) -> list[TaskRow]:
    """The tasks of steps that had not ended when the run was stopped."""
    known = {step.task_id for step in steps}
    return [task for task in children if task.id not in known]


def tasks_under_way(steps: Sequence[StepRow], children: Sequence[TaskRow]) -> list[dict[str, Any]]:
    """The tasks of steps that have not ended, as /api shows them."""
    open_tasks = [task for task in lost_tasks(steps, children) if not task.has_ended]
    return [{"task": task.id, "agent": task.agent, "state": task.state.value, "created": to_rfc3339(task.created)} for task in open_tasks]


def _of_step(step: StepRow, functions: Mapping[str, str | None], undone: Mapping[StepKey, str]) -> OpenEffect | None:
    """`undone`: what came of the undoing of each step, empty where nothing was left open."""
    pointer, name = step.step_key.pointer, step.trail.target
    if step.result.fault is not UNSET:
        is_unknown = step.result.fault.type == OUTCOME_UNKNOWN
        return OpenEffect(pointer, name, step.task_id, "", "its outcome is not known") if is_unknown else None
    owners = [path for path, function in functions.items() if function and (pointer == path or pointer.startswith(f"{path}/"))]
    if not owners:
        return None
    owner = max(owners, key=len)
    problem = next((undone[key] for key in undone if key.pointer == owner and step.step_key.is_within(key)), None)
    if problem == "":
        return None
    why = "it was not undone" if problem is None else f"it could not be undone: {problem}"
    return OpenEffect(pointer, name, step.task_id, functions[owner] or "", why)
