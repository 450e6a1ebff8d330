"""What a suspended run waits for: a moment, an event, tasks of its own that wait for people, and checkpoints."""

from msgspec import Struct
from msgspec.structs import replace

from adapters.contract import Prompt
from gateway.workflows.interpreter.effects import StepKey
from gateway.workflows.runs.people.checkpoints import APPROVE, SIGNAL, Checkpoint, note_of
from gateway.workflows.runs.store import key_text
from gateway.workflows.runs.values import storable


class Wait(Struct, frozen=True):
    """One thing that the step `key` waits for. `wake_at`: microseconds since 1970; `listens`: the key of what it listens for.

    `task_state` is the state of the task `task_id` when the step began to wait for it: the run goes on when the task is in another one.

    `prompt` is what the run's owner can answer by a message to the run. `is_for_others`: no message of the owner brings it.
    `is_sign_in`: the roles of the person who started the run count no more.
    """

    key: StepKey
    note: str = ""
    wake_at: int | None = None
    task_id: str = ""
    task_state: str = ""
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

    def add_task(self, wait: Wait) -> None:
        """The run goes on when the task of `wait` moves; with a prompt, the owner can have it move."""
        self._waits.append(replace(wait, is_for_others=wait.prompt is None))

    def add_checkpoint(self, key: StepKey, checkpoint: Checkpoint) -> None:
        """The run goes on when people answered, or when the checkpoint expires."""
        note = note_of(checkpoint)
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
    def task_states(self) -> dict[str, str]:
        """The state of each task that the run waits for, by its id."""
        return {each.task_id: each.task_state for each in self._waits if each.task_id}

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
        """What the run waits for, in words, some of which are an agent's."""
        return storable("\n".join(each.note for each in self._waits if each.note)[:4000])
