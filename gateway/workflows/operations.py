"""What people do with runs that exist: pause, resume, signal, redrive and fork. Permissions are checked by the routes."""

from collections.abc import Callable
from functools import partial
from typing import Any

from msgspec import Struct, UnsetType

from gateway.storage.database import Batch
from gateway.tasks.log import TaskRow, UnknownTask
from gateway.workflows.engine.continuation.successors import Successor, Successors
from gateway.workflows.engine.waking import RunWaker
from gateway.workflows.runs.pages import find_run
from gateway.workflows.runs.pauses import Pauses
from gateway.workflows.runs.people.checkpoints import Answerer, Checkpoints
from gateway.workflows.runs.store import RunKey, RunRow, RunStore


class NextRun(Struct, frozen=True):
    """A run to start: its input and version, and what is written in the commit that opens its task."""

    input: Any
    version: str
    write: Callable[[Batch, TaskRow], None]


class RunOperations:
    """Each method is recorded in the audit, and changes nothing when it is repeated."""

    def __init__(self, store: RunStore, checkpoints: Checkpoints, pauses: Pauses, *, successors: Successors, waker: RunWaker) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._pauses = pauses
        self._waker = waker
        self._successors = successors

    async def find(self, tenant: str, owner: str | None, run_id: str) -> tuple[TaskRow, RunRow]:
        """A run that has begun, of this owner, or of any owner for None. Raises UnknownTask."""
        found = await find_run(self._store.database, tenant, owner, run_id)
        if found is None or not found.run.version:
            raise UnknownTask
        return found.task, found.run

    async def pause(self, run: RunKey, by: str, decision_id: str) -> None:
        """Has a run stop before its next step. Raises RunNotOpen."""
        await self._pauses.pause(run, by, decision_id)

    async def resume(self, run: RunKey, by: str, decision_id: str) -> None:
        """Has a paused run go on. Raises RunNotOpen."""
        await self._pauses.end_pause(run, by, decision_id)
        await self._waker.wake(run)

    async def signal(self, run: RunKey, name: str, value: Any, *, by: str, decision_id: str, key: str) -> None:
        """Gives a signal to a run that waits for it. Raises SignalNotAwaited and BadCheckpointAnswer."""
        await self._checkpoints.signal(run, name, value, Answerer(by, decision_id, key))
        await self._waker.wake(run)

    async def redrive(self, found: tuple[TaskRow, RunRow], version: str, by: str, *, repeat_unknown: bool) -> NextRun:
        """The run that goes on from the failed step. Raises RunNotFailed, WouldRepeatUnknown and StepsChanged."""
        return self._next_run(await self._successors.redrive(*found, version, repeat_unknown=repeat_unknown), by)

    async def fork(self, row: RunRow, step: str, given: Any | UnsetType, *, version: str, by: str) -> NextRun:
        """The run that goes on from a task, with `given` as its input unless that is UNSET.

        Raises UnknownStep, StepsChanged and StepUndone.
        """
        return self._next_run(await self._successors.fork(row, step, given, version), by)

    def _next_run(self, successor: Successor, by: str) -> NextRun:
        return NextRun(successor.row.input, successor.row.version, partial(self._successors.write, successor, by))
