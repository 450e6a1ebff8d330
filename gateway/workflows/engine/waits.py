"""What a suspended run waits for: a moment, an event, tasks of its own that wait for people, and checkpoints; and what wakes it."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any, Final

import structlog
from msgspec import Struct
from msgspec.structs import replace

from adapters.contract import Failed, Prompt
from gateway.background import run_in_background
from gateway.calls.resumption.takeover import ENDED, FAILED, RESUMED, Takeover
from gateway.storage.database import ReadFailed
from gateway.tasks.log import TaskRow
from gateway.tasks.turns.recorder import GATEWAY_FAILURE
from gateway.workflows.cloud_events.concurrency import RunPlaces
from gateway.workflows.interpreter.effects import StepKey
from gateway.workflows.runs.people.checkpoints import APPROVE, SIGNAL, Checkpoint
from gateway.workflows.runs.store import RunKey, RunStore, key_text
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


class Wait(Struct, frozen=True):
    """One thing that the step `key` waits for. `wake_at`: microseconds since 1970; `listens`: the key of what it listens for.

    `prompt` is what the run's owner can answer by a message to the run. `is_for_others`: no message of the owner brings it.
    `is_sign_in`: the roles of the person who started the run count no more.
    """

    key: StepKey
    note: str = ""
    wake_at: int | None = None
    task_id: str = ""
    checkpoint_id: str = ""
    listens: str = ""
    prompt: Prompt | None = None
    is_for_others: bool = False
    is_sign_in: bool = False


class WaitCollector:
    """Collects the waits of all branches of one interpretation."""

    def __init__(self) -> None:
        self._waits: list[Wait] = []
        self.is_paused = False

    def add_moment(self, key: StepKey, at: int, note: str) -> None:
        """The run goes on at `at`, in microseconds since 1970. Without a note, the moment only ends another wait."""
        self._waits.append(Wait(key, note, wake_at=at, is_for_others=bool(note)))

    def add_pause(self, key: StepKey) -> None:
        """The run goes on when its pause is over; the step is the next."""
        self.is_paused = True
        self._waits.append(Wait(key, f"{key.pointer}: is paused before this step", is_for_others=True))

    def add_event(self, key: StepKey) -> None:
        """The run goes on when an event comes that it listens for."""
        self._waits.append(Wait(key, f"{key.pointer}: listens for events", listens=key_text(key), is_for_others=True))

    def add_task(self, key: StepKey, task_id: str, note: str, prompt: Prompt | None) -> None:
        """The run goes on when the task moves; with `prompt`, the owner can have it move."""
        self._waits.append(Wait(key, note, task_id=task_id, prompt=prompt, is_for_others=prompt is None))

    def add_checkpoint(self, key: StepKey, checkpoint: Checkpoint) -> None:
        """The run goes on when people answered, or when the checkpoint expires."""
        note = f"{key.pointer}: {checkpoint.prompt} (checkpoint {checkpoint.id})"
        wake_at = checkpoint.expires
        if checkpoint.escalation is not None and not checkpoint.is_escalated:
            wake_at = min(wake_at, checkpoint.escalation.at)
        if checkpoint.kind == SIGNAL:
            note = f"{key.pointer}: waits for the signal {checkpoint.prompt}"
        wait = Wait(key, note, wake_at, checkpoint_id=checkpoint.id, is_for_others=True)
        if checkpoint.kind not in (APPROVE, SIGNAL):  # the owner never approves of a run, and signals by another way than a message
            token = {"checkpoint": checkpoint.id}
            prompt = Prompt(checkpoint.id, checkpoint.prompt, schema=checkpoint.schema, token=token)
            wait = replace(wait, prompt=prompt, is_for_others=False)
        self._waits.append(wait)

    def add_sign_in(self, key: StepKey, note: str) -> None:
        """The run goes on when its owner has signed in again."""
        self._waits.append(Wait(key, "" if self.is_for_sign_in else note, is_sign_in=True))

    def drop(self, key: StepKey) -> None:
        """Forgets what steps at a place, or within it, wait for: the run has gone on without them."""
        self._waits = [each for each in self._waits if not each.key.is_within(key)]

    @property
    def wake_at(self) -> int | None:
        """The first moment at which the run goes on, or None."""
        return min((each.wake_at for each in self._waits if each.wake_at is not None), default=None)

    @property
    def task_ids(self) -> tuple[str, ...]:
        return tuple(each.task_id for each in self._waits if each.task_id)

    @property
    def checkpoint_ids(self) -> tuple[str, ...]:
        return tuple(each.checkpoint_id for each in self._waits if each.checkpoint_id)

    @property
    def listens(self) -> tuple[str, ...]:
        """The keys of what the run listens for."""
        return tuple(each.listens for each in self._waits if each.listens)

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return tuple(each.prompt for each in self._waits if each.prompt is not None)

    @property
    def is_for_sign_in(self) -> bool:
        """Whether a step waits until the owner has signed in again."""
        return any(each.is_sign_in for each in self._waits)

    @property
    def is_for_owner(self) -> bool:
        """Whether the owner's answers are all that the run waits for."""
        return bool(self.prompts) and not any(each.is_for_others for each in self._waits)

    @property
    def note(self) -> str:
        """What the run waits for, in words."""
        return "\n".join(each.note for each in self._waits if each.note)[:4000]


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
        self._backoff = FailurePauses(lambda: store.now())
        self._round: asyncio.Task[None] | None = None

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
        left_out = self._backoff.waiting()
        return await self._resume([*await self._store.due(left_out), *await self._places.next_runs(left_out)])

    async def wake(self, run: RunKey) -> int:
        """Resumes one run, if it is due."""
        return await self._resume(await self._store.due(only=run))

    def wake_soon(self) -> None:
        """Looks for runs that are due beside the caller, who does not wait for runs of others."""
        if self._round is None or self._round.done():
            self._round = run_in_background(self._run_round(), "runs_not_woken")

    async def _run_round(self) -> None:
        with suppress(ReadFailed):  # the next round is half a second later
            await self.run_once()

    async def _resume(self, rows: Sequence[TaskRow]) -> int:
        outcomes = []
        for row in rows:
            outcomes.append(outcome := await self._takeover.resume(row, self._ending_of(row)))
            if outcome == FAILED:
                log.warning("run_not_woken", run=row.id, retry_seconds=self._backoff.record_failure(row.id))
            else:
                self._backoff.record_success(row.id)
        moved = [outcome for outcome in outcomes if outcome in (RESUMED, ENDED)]
        if moved:
            log.info("runs_woken", count=len(moved), resumed=moved.count(RESUMED))
        return len(moved)

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
