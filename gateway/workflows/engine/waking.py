"""Finds suspended runs that can go on, and has the takeover of tasks continue them in this process."""

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog

from adapters.contract import Failed
from gateway.calls.resumption.takeover import ENDED, FAILED, RESUMED, Takeover
from gateway.concurrency.rounds import RequestedRounds
from gateway.storage.database import ReadFailed, WriteFailed
from gateway.tasks.log import TaskRow
from gateway.tasks.turns.recorder import GATEWAY_FAILURE
from gateway.workflows.runs.places import RunPlaces
from gateway.workflows.runs.store import RunKey, RunStore
from registry.store import Registry, has_workflow

REMOVED_TEXT = "The workflow was removed, so the run does not go on. What it did is in its trail."
ENDED_TEXT = (
    "The run does not go on, because the rights under which it was started have ended: its grant was revoked or has expired, "
    "or the task that started it has ended."
)
FIRST_US: Final = 1_000_000
PAUSE_MAX_US: Final = 300_000_000
FAILURES_MAX: Final = 1000  # that are known at once
log = structlog.get_logger()


class FailurePauses:
    """What is left alone for a while after it failed: for FIRST_US, and twice as long after each further failure."""

    def __init__(self, now: Callable[[], int]) -> None:
        """`now`: microseconds since 1970."""
        self._now = now
        self._failures: dict[Hashable, tuple[int, int]] = {}  # how often it failed, and until when it is left alone

    def record_failure(self, key: Hashable) -> float:
        """Returns the seconds for which `key` is left alone."""
        count = self._failures.get(key, (0, 0))[0] + 1
        pause: int = min(FIRST_US << min(count - 1, 30), PAUSE_MAX_US)
        if len(self._failures) >= FAILURES_MAX:
            self._failures.pop(next(iter(self._failures)))
        self._failures[key] = (count, self._now() + pause)
        return pause / 1_000_000

    def record_success(self, key: Hashable) -> None:
        self._failures.pop(key, None)

    def is_waiting(self, key: Hashable) -> bool:
        """Whether `key` failed a short while ago."""
        return self._now() < self._failures.get(key, (0, 0))[1]

    def waiting(self) -> list[Any]:
        """Everything that failed a short while ago."""
        return [key for key in self._failures if self.is_waiting(key)]


class RunWaker:
    """Looks for runs that can go on. Of several processes, the one that claims the run's task has it."""

    def __init__(self, store: RunStore, places: RunPlaces, takeover: Takeover, registry: Registry) -> None:
        self._store = store
        self._places = places
        self._takeover = takeover
        self._registry = registry
        self._generation = -1
        self._pauses = FailurePauses(lambda: store.now())
        self._rounds = RequestedRounds(self.run_once, "runs_not_woken", ReadFailed)

    async def end_lost(self) -> int:
        """Ends suspended runs whose grant was revoked, or whose parent task has ended, and returns how many it found."""
        count = await self._store.wake_lost()
        if count:
            await self.run_once()
        return count

    async def run_once(self) -> int:
        """Resumes what is due and returns how many runs went on or ended. A run that can't be resumed is tried again later."""
        if self._registry.generation != self._generation:
            await self._end_runs_of_removed()
        left_out = self._pauses.waiting()
        return await self._resume([*await self._store.due(left_out), *await self._places.next_runs(left_out)])

    async def wake(self, run: RunKey) -> int:
        """Resumes one run, if it is due."""
        return await self._resume(await self._store.due(only=run))

    def wake_soon(self) -> None:
        """Looks for runs that are due beside the caller, who does not wait for runs of others."""
        self._rounds.ask()

    async def _resume(self, rows: Sequence[TaskRow]) -> int:
        outcomes = []
        for row in rows:
            outcomes.append(outcome := await self._takeover.resume(row, self._ending_of(row)))
            if outcome == FAILED:
                await self._leave_alone(row)
            else:
                self._pauses.record_success(row.id)
        moved = [outcome for outcome in outcomes if outcome in (RESUMED, ENDED)]
        if moved:
            log.info("runs_woken", count=len(moved), resumed=moved.count(RESUMED))
        return len(moved)

    async def _leave_alone(self, row: TaskRow) -> None:
        """Has a run that could not be resumed tried again later, and lets those behind it in a queue pass until then."""
        seconds = self._pauses.record_failure(row.id)
        log.warning("run_not_woken", run=row.id, retry_seconds=seconds)
        with suppress(WriteFailed):
            await self._places.put_back(RunKey(row.tenant, row.id), int(seconds * 1_000_000))

    async def _end_runs_of_removed(self) -> None:
        """Has the suspended runs end whose workflows the registry does not have any more."""
        generation = self._registry.generation
        for tenant, workflow in await self._store.suspended_workflows():
            if not has_workflow(self._registry, tenant, workflow):
                await self._store.end_all(tenant, workflow)
        self._generation = generation

    def _ending_of(self, row: TaskRow) -> Failed:
        """How a run ends that may not go on."""
        return Failed(ENDED_TEXT if has_workflow(self._registry, row.tenant, row.agent) else REMOVED_TEXT, kind=GATEWAY_FAILURE)
