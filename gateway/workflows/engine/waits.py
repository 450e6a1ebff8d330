"""What a suspended run waits for: a moment, an event, tasks of its own that wait for people, and checkpoints; and what wakes it."""

import structlog

from adapters.contract import Failed, Prompt
from gateway.calls.resumption.takeover import ENDED, RESUMED, Takeover
from gateway.tasks.log import TaskRow
from gateway.tasks.turns.recorder import GATEWAY_FAILURE
from gateway.workflows.cloud_events.concurrency import RunPlaces
from gateway.workflows.runs.people.checkpoints import APPROVE, SIGNAL, Checkpoint
from gateway.workflows.runs.store import RunStore
from registry.cards.card import WORKFLOW_KIND
from registry.store import Registry, UnknownName

REMOVED_TEXT = "The workflow was removed, so the run does not go on. What it did is in its trail."
ENDED_TEXT = (
    "The run does not go on, because the rights under which it was started have ended: its grant was revoked or has expired, "
    "or the task that started it has ended."
)
log = structlog.get_logger()


class Waits:
    """Collects the waits of all branches of one interpretation."""

    def __init__(self) -> None:
        self.wake_at: int | None = None
        self.task_ids: list[str] = []
        self.checkpoint_ids: list[str] = []
        self.prompts: list[Prompt] = []  # that the run's owner can answer by a message to the run
        self.is_paused = False
        self.is_for_sign_in = False  # the roles of the person who started the run count no more
        self._notes: list[str] = []
        self._waits_for_others = False  # for something that no message of the owner brings

    def add_moment(self, at: int, note: str) -> None:
        """The run goes on at `at`, in microseconds since 1970. Without a note, the moment only ends another wait."""
        self.wake_at = at if self.wake_at is None else min(self.wake_at, at)
        if note:
            self._notes.append(note)
            self._waits_for_others = True

    def add_pause(self, pointer: str) -> None:
        """The run goes on when its pause is over; the step at `pointer` is the next."""
        self.is_paused = self._waits_for_others = True
        self._notes.append(f"{pointer}: is paused before this step")

    def add_event(self, note: str) -> None:
        """The run goes on when an event comes that it listens for."""
        self._notes.append(note)
        self._waits_for_others = True

    def add_task(self, task_id: str, note: str, prompt: Prompt | None) -> None:
        """The run goes on when the task moves; with `prompt`, the owner can have it move."""
        self.task_ids.append(task_id)
        self._notes.append(note)
        if prompt is None:
            self._waits_for_others = True
        else:
            self.prompts.append(prompt)

    def add_checkpoint(self, checkpoint: Checkpoint, pointer: str) -> None:
        """The run goes on when people answered, or when the checkpoint expires."""
        self.checkpoint_ids.append(checkpoint.id)
        self.add_moment(checkpoint.expires, "")
        if checkpoint.escalation is not None and not checkpoint.is_escalated:
            self.add_moment(checkpoint.escalation.at, "")
        if checkpoint.kind == SIGNAL:
            self._notes.append(f"{pointer}: waits for the signal {checkpoint.prompt}")
        else:
            self._notes.append(f"{pointer}: {checkpoint.prompt} (checkpoint {checkpoint.id})")
        if checkpoint.kind in (APPROVE, SIGNAL):  # the owner of a run never approves of it, and signals by another way than a message
            self._waits_for_others = True
        else:
            token = {"checkpoint": checkpoint.id}
            self.prompts.append(Prompt(checkpoint.id, checkpoint.prompt, schema=checkpoint.schema, token=token))

    def add_sign_in(self, note: str) -> None:
        """The run goes on when its owner has signed in again."""
        if not self.is_for_sign_in:
            self._notes.append(note)
        self.is_for_sign_in = True

    @property
    def is_for_owner(self) -> bool:
        """Whether the owner's answers are all that the run waits for."""
        return bool(self.prompts) and not self._waits_for_others

    @property
    def note(self) -> str:
        """What the run waits for, in words."""
        return "\n".join(self._notes)[:4000]


class RunWaker:
    """Looks for runs that can go on. Of several processes, the one that claims the run's task has it."""

    def __init__(self, store: RunStore, places: RunPlaces, takeover: Takeover, registry: Registry) -> None:
        self._store = store
        self._places = places
        self._takeover = takeover
        self._registry = registry
        self._generation = -1

    async def end_lost(self) -> int:
        """Ends suspended runs whose grant was revoked, or whose parent task has ended, and returns how many it found."""
        count = await self._store.wake_lost()
        if count:
            await self.run_once()
        return count

    async def run_once(self) -> int:
        """Resumes what is due and returns how many runs went on or ended."""
        if self._registry.generation != self._generation:
            await self._end_runs_of_removed()
        due = [*await self._store.due(), *await self._places.next_runs()]
        outcomes = [await self._takeover.resume(row, self._ending_of(row)) for row in due]
        moved = [outcome for outcome in outcomes if outcome in (RESUMED, ENDED)]
        if moved:
            log.info("runs_woken", count=len(moved), resumed=moved.count(RESUMED))
        return len(moved)

    async def _end_runs_of_removed(self) -> None:
        """Has the suspended runs end whose workflows the registry does not have any more."""
        generation = self._registry.generation
        for tenant, workflow in await self._store.suspended_workflows():
            if not self._is_published(tenant, workflow):
                await self._store.end_all(tenant, workflow)
        self._generation = generation

    def _ending_of(self, row: TaskRow) -> Failed:
        """How a run ends that may not go on."""
        return Failed(ENDED_TEXT if self._is_published(row.tenant, row.agent) else REMOVED_TEXT, kind=GATEWAY_FAILURE)

    def _is_published(self, tenant: str, workflow: str) -> bool:
        try:
            return self._registry.find(tenant, workflow).kind == WORKFLOW_KIND
        except UnknownName:
            return False
