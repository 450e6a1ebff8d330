"""The port through which the end of a turn ends the effect of its task on a subject."""

from typing import Protocol

from adapters.task import TaskState
from gateway.storage.batch import Batch
from gateway.tasks.log import TaskRow
from gateway.tasks.turns.costs import WriteCost
from policies.delegation.rulings import Grant


class EndEffect(Protocol):
    """Records in the commit of a task's end that the effect of its grant has ended, and whether the agent completed the task."""

    def __call__(self, batch: Batch, grant: Grant, is_completed: bool, /) -> None: ...


def keep_effect(_batch: Batch, _grant: Grant, _is_completed: bool) -> None:
    """Records nothing."""


def and_then_end(end_effect: EndEffect, grant: Grant, row: TaskRow, write_cost: WriteCost | None) -> WriteCost:
    """What is written with the ending of a turn: its cost, and the end of its effect."""

    def write(batch: Batch, task_id: str, seq: int) -> None:
        if write_cost is not None:
            write_cost(batch, task_id, seq)
        end_effect(batch, grant, row.state is TaskState.COMPLETED)

    return write
