"""The trail of a step: what it received, whom it called, by which ruling, for how long. Its end is a record of the audit."""

from dataclasses import dataclass
from typing import Any

from msgspec import UNSET

from adapters.contract import USAGE_KEY
from adapters.task import Message, Task
from gateway.storage.database import Batch
from gateway.tasks.log import TaskRow
from gateway.workflows.engine.steps import RunIdentity
from gateway.workflows.interpreter.effects import PreparedCall, SubRun, Wanted, WantedClaim
from gateway.workflows.runs.journal import RESULT_MAX, Result, StepRow, Trail
from gateway.workflows.runs.values import Reference, digest_of, encode_canonical, mask_secrets, storable
from policies.audit.log import AuditLog


@dataclass(slots=True)
class StepNotes:
    """What becomes known of a step while it is at work. `started`: microseconds since 1970; a step that waited began before its wait."""

    started: int
    target: str = ""
    task_id: str = ""
    decision_id: str = ""
    usage: Any = UNSET

    def add_task(self, row: TaskRow, task: Task) -> None:
        """Notes the task that the step caused."""
        self.task_id, self.decision_id, self.started = row.id, row.decision_id, min(self.started, row.created)
        message = task.status.message
        for metadata in (task.metadata, message.metadata if isinstance(message, Message) else UNSET):
            if isinstance(metadata, dict) and USAGE_KEY in metadata:
                self.usage = metadata[USAGE_KEY]
                break


def _given(argument: Any) -> Any:
    """What a step received, as its trail shows it."""
    match argument:
        case PreparedCall():
            return argument.arguments
        case SubRun():
            return argument.input
        case Wanted():
            return {argument.mode: [each.attributes for each in argument.filters]}
        case WantedClaim():
            return {"subject": argument.subject, "effect": argument.effect, "purpose": argument.purpose, "priority": argument.priority}
    return argument


def trail_of(notes: StepNotes, argument: Any, result: Result) -> Trail:
    """The trail of a step that ended, which had this argument. Secrets of its input are masked before anything is made of it."""
    shown = mask_secrets(_given(argument))
    encoded = encode_canonical(shown)
    digest = digest_of(shown)
    kept = Result(value=shown) if len(encoded) <= RESULT_MAX else Result(reference=Reference(digest, len(encoded)))
    returned = "" if result.value is UNSET else digest_of(result.value)
    return Trail(storable(notes.target), notes.decision_id, kept, digest, returned, notes.usage)


class StepRecorder:
    """Writes the audit record of a step's end."""

    def __init__(self, audit: AuditLog, identity: RunIdentity) -> None:
        self._audit = audit
        self._identity = identity

    def record(self, step: StepRow, batch: Batch) -> None:
        """Called in the commit that stores the step."""
        identity, trail, fault = self._identity, step.trail, step.result.fault
        self._audit.record(
            batch,
            {
                "kind": "step",
                "tenant": identity.run.tenant,
                "decision_id": trail.decision_id,
                "txn": identity.txn,
                "task_id": identity.run.id,
                "workflow": identity.workflow,
                "step": step.step_key.pointer,
                "key": step.key,
                "target": trail.target,
                "step_task_id": step.task_id,
                "outcome": "done" if fault is UNSET else fault.type,
                "attempt": attempt_of(step),
                "input_digest": trail.input_digest,
                "output_digest": trail.output_digest,
                "duration_us": step.ended - step.started,
            },
        )


def attempt_of(step: StepRow) -> int:
    """Which attempt of the `try` around it a step was, the first being 1."""
    return step.step_key.attempts[-1] + 1 if step.step_key.attempts else 1
