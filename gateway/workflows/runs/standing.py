"""Where a run stands and why, in sentences for readers who did not write its document."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import UNSET

from adapters.task import Message, Task, TaskState, text_of
from gateway.tasks.log import TaskRow
from gateway.workflows.interpreter.compensations import is_undoing
from gateway.workflows.runs.journal import CALL, StepRow
from gateway.workflows.runs.open_effects import OpenEffect
from gateway.workflows.runs.pages import ShownRun

AT_WORK_MAX = 5  # steps at work that are named


@dataclass(frozen=True, slots=True)
class Standing:
    """A run with its task, its steps, the tasks of its steps and the effects that it has left open."""

    shown: ShownRun
    task: Task
    steps: Sequence[StepRow]
    children: Sequence[TaskRow]
    left_open: Sequence[OpenEffect]

    def text(self, now: int) -> str:
        """The sentences. `now` is in microseconds since 1970."""
        row, run = self.shown.task, self.shown.run
        ended = len(self._calls)
        done = (
            f"{ended} step{'' if ended == 1 else 's'} had ended"
            if row.has_ended
            else f"{ended} step{'' if ended == 1 else 's'} ended so far"
        )
        if row.state is TaskState.COMPLETED:
            return f"The run completed after {_duration(row.updated - row.created)}; {done}."
        if row.has_ended:
            return self._stopped(done)
        if not run.version:
            return f"The run has not begun. {self._status_text()}".rstrip()
        if run.paused_at is not None:
            return f"The run is paused; {done}. It goes on with: interlock run resume {row.id}"
        if run.note:
            waits = "; ".join(run.note.split("\n"))
            return f"The run waits. {waits}. {done.capitalize()}."
        return f"The run is at work{self._at_work(now)}; {done}."

    @property
    def _calls(self) -> list[StepRow]:
        """The steps of the run, without those that undo others."""
        return [step for step in self.steps if step.kind == CALL and not is_undoing(step.step_key)]

    def _at_work(self, now: int) -> str:
        open_ones = [task for task in self.children if not task.has_ended][:AT_WORK_MAX]
        named = [f"{task.agent} for {_duration(now - task.created)}" for task in open_ones]
        return f", and waits for {', '.join(named)}" if named else ""

    def _stopped(self, done: str) -> str:
        words = {TaskState.FAILED: "failed", TaskState.CANCELED: "was canceled", TaskState.REJECTED: "was rejected"}
        failed = [step for step in self._calls if step.result.fault is not UNSET]
        where = f" at the step {_name(failed[-1])}" if failed and self.shown.run.fault else ""
        why = self._status_text()
        sentence = f"The run {words[self.shown.task.state]}{where}{': ' + why if why else ''}".rstrip(".") + f". {done.capitalize()}."
        if self.left_open:
            effects = ", ".join(f"{each.step or each.target} ({each.why})" for each in self.left_open[:AT_WORK_MAX])
            sentence += f" Effects left open: {effects}."
        return f"{sentence} It goes on in a new run with: interlock run redrive {self.shown.task.id}"

    def _status_text(self) -> str:
        message = self.task.status.message
        return text_of(message.parts).strip() if isinstance(message, Message) else ""


def _name(step: StepRow) -> str:
    """The name of a step's task in the document."""
    return step.step_key.pointer.removesuffix("/function").rpartition("/")[2].replace("~1", "/").replace("~0", "~")


def _duration(microseconds: int) -> str:
    """Time in the two largest units."""
    seconds = max(0, microseconds) // 1_000_000
    for unit, size, name, below in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            return f"{seconds // size} {unit} {seconds % size // below} {name}"
    return f"{max(0, microseconds) / 1_000_000:.1f} s"
