"""What a suspended run waits for: a moment, tasks of its own that wait for people, and checkpoints."""

from adapters.contract import Prompt
from gateway.workflows.runs.checkpoints import APPROVE, SIGNAL, Checkpoint


class Waits:
    """Collects the waits of all branches of one interpretation."""

    def __init__(self) -> None:
        self.wake_at: int | None = None
        self.task_ids: list[str] = []
        self.prompts: list[Prompt] = []  # that the run's owner can answer by a message to the run
        self.is_paused = False
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
        self.add_moment(checkpoint.expires, "")
        if checkpoint.kind == SIGNAL:
            self._notes.append(f"{pointer}: waits for the signal {checkpoint.prompt}")
        else:
            self._notes.append(f"{pointer}: {checkpoint.prompt} (checkpoint {checkpoint.id})")
        if checkpoint.kind in (APPROVE, SIGNAL):  # the owner of a run never approves of it, and signals by another way than a message
            self._waits_for_others = True
        else:
            token = {"checkpoint": checkpoint.id}
            self.prompts.append(Prompt(checkpoint.id, checkpoint.prompt, schema=checkpoint.schema, token=token))

    @property
    def is_for_owner(self) -> bool:
        """Whether the owner's answers are all that the run waits for."""
        return bool(self.prompts) and not self._waits_for_others

    @property
    def note(self) -> str:
        """What the run waits for, in words."""
        return "\n".join(self._notes)[:4000]
