"""The port through which the end of a turn ends the effect of its task on a subject."""

from typing import Literal, Protocol

from adapters.contract import Event, Failed
from adapters.task import TaskState
from gateway.storage.batch import Batch
from gateway.tasks.log import TaskRow
from gateway.tasks.turns.costs import WriteCost
from policies.delegation.rulings import Grant

TaskEnding = Literal["completed", "unsent", "unknown"]


class EndEffect(Protocol):
    """Records in the commit of a task's end that the effect of its grant has ended, and how the task did."""

    def __call__(self, batch: Batch, grant: Grant, ending: TaskEnding, /) -> None: ...


def keep_effect(_batch: Batch, _grant: Grant, _ending: TaskEnding) -> None:
    """Records nothing."""


def and_then_end(end_effect: EndEffect, grant: Grant, row: TaskRow, event: Event, write_cost: WriteCost | None) -> WriteCost:
    """What is written with the ending of a turn by `event`: its cost, and the end of its effect."""

    def write(batch: Batch, task_id: str, seq: int) -> None:
        if write_cost is not None:
            write_cost(batch, task_id, seq)
        end_effect(batch, grant, "completed" if row.state is TaskState.COMPLETED else "unsent" if is_unsent else "unknown")

    # A later turn of a task that has no effect of its own leaves open what the first one did.
    mark = grant.effect_mark
    is_unsent = isinstance(event, Failed) and event.had_no_effect and mark is not None and not mark.effect.continues_task
    return write
