"""Why a request about workflows is refused. This module imports nothing of the engine, so that a gateway without workflows stays small."""

from msgspec import Struct

from gateway.tasks.log import UnknownTask
from registry.store import UnknownName


class Problem(Struct, frozen=True, order=True):
    """One thing that is wrong. `path` is a JSON pointer into the document, `line` counts from 1; 0 when it is not known."""

    line: int
    path: str
    reason: str


class DocumentRefused(Exception):
    """The document can't be used. `problems` has all that were found, in the order of the text."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("; ".join(f"{each.path or '/'} (line {each.line}): {each.reason}" for each in problems))
        self.problems = problems


class UnknownWorkflow(UnknownName):
    """No such workflow exists for this caller."""


class UnknownRun(UnknownTask):
    """No such run exists for this caller."""


class WorkflowHasRuns(Exception):
    """The workflow has runs that have not ended; the message says how many."""


class UnknownCheckpoint(Exception):
    """No such checkpoint exists for this caller."""


class UnknownCheckpointStep(UnknownCheckpoint):
    """The workflow asks nobody at this step; the message names the steps at which it does."""


class CheckpointClosed(Exception):
    """The checkpoint was answered before, has expired, was withdrawn, or its run has ended; the message says which."""


class SignalNotAwaited(Exception):
    """The run does not wait for a signal of this name."""


class RunNotOpen(Exception):
    """The run has ended, or has not begun: nothing of it can be paused or resumed."""


class RunNotFailed(Exception):
    """The run has not failed and was not canceled, so nothing of it can be redriven."""


class WouldRepeatUnknown(Exception):
    """A redrive would repeat steps that may have had their effect; the message names them."""

    def __init__(self, steps: tuple[str, ...]) -> None:
        super().__init__(
            f"The run may have had the effect of {', '.join(steps)}, which a redrive would repeat. Find out what happened there, then say "
            "`repeat_unknown` (--repeat-unknown) to repeat it, or fork the run from another step."
        )
        self.steps = steps


class UnknownStep(Exception):
    """The run can't be forked at this step; the message says why."""


class StepUndone(Exception):
    """A fork would go on with what a step returned that was undone, or is going to be; the message names the step."""

    def __init__(self, step: str) -> None:
        super().__init__(
            f"The run undid {step}, so nothing goes on from what it returned. Fork the run at {step} or before it, or redrive it."
        )


class StepsChanged(Exception):
    """The new version of the workflow does not run the steps that have ended; the message names one of them."""


class BadCheckpointAnswer(Exception):
    """The answer does not fit the schema of the checkpoint; the message says why."""


class EventConflict(Exception):
    """Another event has this `source` and `id`: of another sender, or with another type or content."""


class BadEvent(Exception):
    """The text is no event that the gateway takes; the message says why."""


class EventTypeNotAllowed(Exception):
    """The source of the event may not send events of its type; the message names both."""


class EventSchemaBroken(Exception):
    """The data of the event does not fit the schema of its source; the message says where."""


class EventReplayed(Exception):
    """The very same signed request was taken before."""


class BadRelaxation(Exception):
    """The relaxation of a checkpoint can't be used; the message says why."""
