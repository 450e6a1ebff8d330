"""Runs that begin with the journal of another run: a redrive goes on from the failed step, a fork from any step with changed input."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import select

from adapters.task import TaskState
from gateway.storage.database import Batch
from gateway.tasks.log import TaskEvent, TaskLog, TaskRow
from gateway.workflows.dsl.document import Document
from gateway.workflows.dsl.walk import tasks
from gateway.workflows.dsl.wording import suggestion
from gateway.workflows.engine.continuation.copies import (
    is_approval,
    is_compensation,
    is_granted_claim,
    repeated_unknowns,
    steps_to_redrive,
    undone_among,
)
from gateway.workflows.engine.continuation.replay import replay
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.interpreter.errors import Fault
from gateway.workflows.problems import RunNotFailed, StepsChanged, StepUndone, UnknownStep, WouldRepeatUnknown
from gateway.workflows.runs.journal import CALL, LIMIT, StepRow, insert_step, read_steps
from gateway.workflows.runs.open_effects import children_of, lost_tasks
from gateway.workflows.runs.store import Origin, RunKey, RunRow, RunStore, insert_run
from gateway.workflows.runs.tables import workflow_runs
from gateway.workflows.runs.versions import Versions
from policies.audit.log import AuditLog

REDRIVE: Final = "redrive"
FORK: Final = "fork"
REDRIVABLE: Final = (TaskState.FAILED, TaskState.CANCELED)
_LOCK_ORIGIN: Final = "UPDATE workflow_runs SET fault = fault WHERE tenant = ? AND id = ?"
_decode_fault = msgspec.json.Decoder(Fault).decode


class Successor(Struct, frozen=True):
    """A run to start, without its key, and the steps that it does not repeat."""

    row: RunRow
    steps: Sequence[StepRow]
    repeated: tuple[str, ...] = ()  # steps that it repeats although they may have had their effect


class Successors:
    """Plans runs that go on from others. The run itself is started as any run is, by a message of the person who asks for it."""

    def __init__(self, store: RunStore, versions: Versions, evaluator: Evaluator, audit: AuditLog, task_log: TaskLog) -> None:
        self._task_log = task_log
        self._store = store
        self._versions = versions
        self._evaluator = evaluator
        self._audit = audit

    async def redrive(self, task: TaskRow, row: RunRow, version: str, *, repeat_unknown: bool) -> Successor:
        """The run that goes on from the failed step of another one.

        Raises RunNotFailed and StepsChanged, and WouldRepeatUnknown unless `repeat_unknown`.

        `version`: the version of the document that it runs with, empty for that of the other run.
        """
        if task.state not in REDRIVABLE or not row.version:
            raise RunNotFailed
        steps = await read_steps(self._store, row.key)
        fault = _decode_fault(row.fault) if row.fault else None
        kept = steps_to_redrive(steps, fault)
        unknown = await self._repeated_unknowns(row, steps, kept)
        if unknown and not repeat_unknown:
            raise WouldRepeatUnknown(unknown)
        began = msgspec.structs.replace(
            row, version=version or row.version, origin=Origin(row.key.id, REDRIVE, fault.instance if fault else "")
        )
        if began.version != row.version:
            await self._check_steps_run(began, kept)
            kept = [each for each in kept if not is_approval(each)]
        return Successor(began, kept, unknown)

    async def fork(self, row: RunRow, step: str, given: Any | UnsetType, version: str) -> Successor:
        """The run that goes on from a task of another one, with `given` as the task's input unless it is UNSET.

        `step` is the task's name or pointer. Raises UnknownStep, StepsChanged and StepUndone.
        """
        document = await self._document(row)
        pointer = _pointer_of(document, step)
        steps = await read_steps(self._store, row.key)
        usable = [each for each in steps if each.kind != LIMIT and not is_compensation(each)]
        replayed = await replay(document, self._evaluator.for_owner(f"{row.key.tenant}|"), row, usable, pointer)
        if not replayed.has_stopped:
            raise UnknownStep(f"the run has not reached the step {pointer}")
        kept = [each for each in usable if each.key in replayed.used]
        if undone := undone_among(steps, kept):
            raise StepUndone(undone[0].step_key.pointer)
        inputs = row.inputs if given is UNSET else {**row.inputs, pointer: given}
        began = msgspec.structs.replace(row, version=version or row.version, inputs=inputs, origin=Origin(row.key.id, FORK, pointer))
        if began.version != row.version:
            await self._check_steps_run(began, kept)
        kept = [each for each in kept if not is_approval(each) and not is_granted_claim(each)]
        return Successor(began, kept)  # people approved of what one run does, and of it once

    def write(self, successor: Successor, by: str, batch: Batch, task: TaskRow) -> None:
        """Stores the run and its journal in the commit that opens its task."""
        run, origin = RunKey(task.tenant, task.id), successor.row.origin
        batch.flush()  # the row of the task, which that of the run refers to
        insert_run(batch, msgspec.structs.replace(successor.row, key=run, started=self._store.now()))
        for step in _steps_for(successor, run, batch):
            insert_step(batch, run, step)
        kind = "run-redriven" if origin.kind == REDRIVE else "run-forked"
        ids = {"tenant": run.tenant, "decision_id": task.decision_id, "txn": task.txn, "task_id": run.id}
        repeated = {"repeated": list(successor.repeated)} if successor.repeated else {}
        self._audit.record(batch, {"kind": kind, **ids, "origin": origin.run_id, "step": origin.step, "by": by, **repeated})

    async def _repeated_unknowns(self, row: RunRow, steps: Sequence[StepRow], kept: Sequence[StepRow]) -> tuple[str, ...]:
        """The steps that may have had their effect and are repeated, but those that the document declares as idempotent."""
        found = repeated_unknowns(steps, kept)
        for child in lost_tasks(steps, await children_of(self._store.database, row.key)):
            events = await self._task_log.read_events(child, 0)
            if _was_sent(events):
                found.append(_step_of(events, row.key))
        if not found:
            return ()
        document = await self._versions.document(row.key.tenant, row.workflow, row.version)
        return tuple(dict.fromkeys(pointer for pointer in found if document is None or not _is_idempotent(document, pointer)))

    async def _document(self, row: RunRow) -> Document:
        """Raises UnknownStep where the version is gone."""
        document = await self._versions.document(row.key.tenant, row.workflow, row.version)
        if document is None:
            raise UnknownStep("the version of the workflow that the run began with is gone")
        return document

    async def _check_steps_run(self, row: RunRow, kept: Sequence[StepRow]) -> None:
        """Raises StepsChanged unless the version of `row` takes the same path through the steps that have ended."""
        document = await self._versions.document(row.key.tenant, row.workflow, row.version)
        evaluator = self._evaluator.for_owner(f"{row.key.tenant}|")
        used = frozenset[str]() if document is None else (await replay(document, evaluator, row, kept)).used
        for step in kept:
            if step.kind == CALL and step.key not in used:
                raise StepsChanged(f"the new version does not run {step.step_key.pointer}, which has ended")


def _steps_for(successor: Successor, run: RunKey, batch: Batch) -> Sequence[StepRow]:
    """The steps that a run begins with. Of several runs that go on from the same one, the first keeps what people approved of."""
    table, origin = workflow_runs.c, successor.row.origin.run_id
    batch.run(_LOCK_ORIGIN, (run.tenant, origin))
    others = select(table.id).where(table.tenant == run.tenant, table.origin_id == origin, table.origin_kind == REDRIVE, table.id != run.id)
    if batch.connection.execute(others.limit(1)).first() is None:
        return successor.steps
    return [step for step in successor.steps if not is_approval(step)]


def _was_sent(events: Sequence[TaskEvent]) -> bool:
    """Whether a task got further than waiting for people to allow it."""
    states = [event.status.state for event in events if event.kind == "status"]
    return TaskState.AUTH_REQUIRED not in states or TaskState.WORKING in states


def _step_of(events: Sequence[TaskEvent], run: RunKey) -> str:
    """The step that opened a task: its first message has the step's key as its id."""
    name = next((event.message.message_id for event in events if event.kind == "message"), "")
    return name.removeprefix(f"{run.id}:").rsplit(":", 2)[0]


def _is_idempotent(document: Document, pointer: str) -> bool:
    """Whether the innermost task that has this pointer, or contains it, declares that repeating it does no harm."""
    around = [each for each in tasks(document) if pointer == each.path or pointer.startswith(f"{each.path}/")]
    return bool(around) and max(around, key=lambda each: len(each.path)).task.metadata.gateway.idempotent


def _pointer_of(document: Document, step: str) -> str:
    """The pointer of a task that is given by its pointer or its name. Raises UnknownStep."""
    found = [each.path for each in tasks(document) if step in (each.path, each.name)]
    if not found:
        known = [name for each in tasks(document) for name in (each.name, each.path)]
        raise UnknownStep(f"the workflow has no step {step[:200]}{suggestion(step, known)}")
    if len(found) > 1:
        raise UnknownStep(f"several steps have this name: {', '.join(found[:10])}")
    return found[0]
