"""The adapter of workflows: a run is the task of the workflow's agent, and each turn interprets its document from the beginning."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
import structlog
from msgspec import UNSET
from msgspec.structs import replace

from adapters.contract import (
    Adapter,
    ArtifactPiece,
    Ask,
    Call,
    Done,
    Event,
    Failed,
    Progress,
    RefLearned,
    Suspended,
    Turn,
    TurnPostponed,
    VendorRef,
)
from adapters.task import Artifact, Message, Part, Role, Task
from gateway.storage.database import ReadFailed, WriteFailed
from gateway.tasks.turns.in_flight import ShuttingDown
from gateway.telemetry.spans import TRACEPARENT, TraceContext
from gateway.workflows.coordination.kinds import TASK_FUNCTIONS
from gateway.workflows.dsl.document import Document
from gateway.workflows.dsl.durations import UNDO_GRACE, milliseconds_of
from gateway.workflows.dsl.extras import DEADLINE
from gateway.workflows.engine.checkpoint_steps import CheckpointSteps
from gateway.workflows.engine.effects import JournaledEffects
from gateway.workflows.engine.event_steps import EventSteps
from gateway.workflows.engine.requests import answer_parts
from gateway.workflows.engine.results import fault_ending, misfit_ending
from gateway.workflows.engine.steps import RightsEnded, RunIdentity, StepCalls
from gateway.workflows.engine.suspension.claim_steps import ClaimParts
from gateway.workflows.engine.targets import StepTargets
from gateway.workflows.engine.trail import StepRecorder
from gateway.workflows.engine.waking import REMOVED_TEXT
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.interpreter.effects import RunSuspended
from gateway.workflows.interpreter.errors import OWN, Fault, WorkflowError, standard_error
from gateway.workflows.interpreter.interpreter import Interpreter
from gateway.workflows.problems import BadCheckpointAnswer, CheckpointClosed, DocumentRefused, Problem, UnknownCheckpoint
from gateway.workflows.runs.journal import Journal, read_stored_steps
from gateway.workflows.runs.open_effects import can_undo, children_of, open_effects
from gateway.workflows.runs.people.checkpoints import Answerer, Checkpoints
from gateway.workflows.runs.people.open_checkpoints import OpenCheckpoints
from gateway.workflows.runs.people.relaxations import Relaxations
from gateway.workflows.runs.places import RunPlaces
from gateway.workflows.runs.store import RunKey, RunRow, RunStore, RunTaken, Suspension
from gateway.workflows.runs.versions import Versions
from policies.audit.log import AuditLog
from registry.cards.card import Registration
from registry.cards.republish import SKILL_SELECTION

OUTPUT_ARTIFACT: Final = "output"
RIGHTS_ENDED_TEXT: Final = "The run stopped, because the rights under which it was started have ended."
DEADLINE_TEXT: Final = "The run took longer than its workflow allows (metadata.gateway.deadline)."
DEADLINE_FAULT: Final = replace(standard_error("timeout", DEADLINE_TEXT, "").fault, title="Deadline Passed")
NOT_UNDONE_TEXT: Final = "What it did was not undone within an hour after that."
BROKEN_TEXT: Final = "the gateway met an error of its own, which its log has"
BROKEN_FAULT: Final = Fault(f"{OWN}gateway-failure", 500, "Gateway Failure")
UNREADABLE_TEXT: Final = (
    "This release of the gateway does not take the document that the run began with, so another release has to go on with it:"
)
UNREADABLE_FAULT: Final = Fault(f"{OWN}document-refused", 500, "Document Refused")
UNREADABLE_US: Final = 60_000_000  # until the next process looks at such a run
DETAIL_MAX: Final = 1000  # characters
POSTPONING: Final = (WriteFailed, ReadFailed, ShuttingDown)  # the turn ends without an ending, and is taken up when the database is back
log = structlog.get_logger()


class FitnessCheck(Protocol):
    """Whether published workflows still fit the registry (gateway/workflows/publishing/fitness.py)."""

    async def problems_of(self, entry: Registration) -> tuple[Problem, ...]: ...


@dataclass(frozen=True, slots=True)
class EngineParts:
    """What runs need in one process."""

    store: RunStore
    places: RunPlaces
    versions: Versions
    evaluator: Evaluator
    steps: StepCalls
    checkpoints: Checkpoints
    open_checkpoints: OpenCheckpoints
    relaxations: Relaxations
    fitness: FitnessCheck
    audit: AuditLog
    targets: StepTargets
    events: EventSteps
    claims: ClaimParts
    currency: str = "USD"  # of costs


class WorkflowAdapter:
    """Runs documents. A run that waits ends its turn as suspended; `RunWaker` has it go on, in any process."""

    def __init__(self, parts: EngineParts) -> None:
        self._parts = parts

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """Yields what becomes of a run until it ends, or waits. Answers of the owner reach what the run waits for first."""
        identity = _identity_of(call, turn.message)
        problems = await self._parts.fitness.problems_of(call.target)
        if problems and not turn.answers and await self._is_new(identity):
            yield misfit_ending(problems)
            return
        row = _new_run(identity, call, _input_of(turn.message), self._parts.store.now())
        async for event in self._interpret(dataclasses.replace(identity, is_first_turn=not turn.answers), call, row, turn):
            yield event

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        """Goes on with a run that was suspended, or whose process has ended. `known` has the message that began it.

        An answer of the owner that came last is delivered, unless it was.
        """
        identity = _identity_of(call, known.history[0] if known.history else None)
        given = _input_of(known.history[0]) if known.history else {}
        async for event in self._interpret(identity, call, _new_run(identity, call, given, self._parts.store.now()), turn):
            yield event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        """The run stops with its turn, and nothing of it goes on after its task has ended. Its open questions are withdrawn."""
        with suppress(WriteFailed, ReadFailed):  # `Checkpoints.withdraw_ended` and `RunClaims.tend` do so later
            await self._parts.checkpoints.withdraw(run := _identity_of(call, None).run)
            await self._parts.claims.claims.release_known(run)
        return True

    async def _is_new(self, identity: RunIdentity) -> bool:
        """Whether the run has not begun yet. Raises TurnPostponed."""
        try:
            row = await self._parts.store.find(identity.run)
        except ReadFailed as error:
            raise TurnPostponed from error
        # the row of a run that nobody starts is written with its task
        return row is None or bool(row.requesters and not row.note and not row.origin.run_id)

    async def _interpret(self, identity: RunIdentity, call: Call, begun: RunRow, turn: Turn) -> AsyncIterator[Event]:
        """Raises TurnPostponed while the database is away: whatever process takes the run up goes on with it."""
        yield RefLearned(VendorRef(task_id=identity.run.id))
        yield Progress()
        run_turn = _RunTurn(self._parts, identity, call.grant.delegation.principal.owner_key)
        try:
            if turn.answers:
                await self._deliver_answers(identity, call, turn)
            for event in await run_turn.events(begun):
                yield event
        except RunTaken:
            log.info("run_taken", run=identity.run.id)
            yield Suspended()  # refused too, since the task is another process's
        except POSTPONING as error:
            log.info("run_postponed", run=identity.run.id, error=type(error).__name__)
            raise TurnPostponed from error

    async def _deliver_answers(self, identity: RunIdentity, call: Call, turn: Turn) -> None:
        """Hands the owner's answers to checkpoints and to tasks of steps. What was answered before stays as it is."""
        owner, decision = call.grant.delegation.principal.owner_key, call.grant.decision.id
        for number, answer in enumerate(turn.answers):
            token = answer.prompt.token if isinstance(answer.prompt.token, Mapping) else {}
            if "task" in token:
                await self._parts.steps.answer(
                    identity, token["agent"], token["task"], answer_parts(answer.value), f"{turn.message.message_id}:{number}"
                )
                continue
            if not self._parts.steps.is_in_person(call.grant.delegation):  # an agent sent it, and questions to people are for people
                log.warning("answer_not_taken", run=identity.run.id, error="NotInPerson")
                continue
            try:
                checkpoint = await self._parts.checkpoints.find(identity.run.tenant, str(token.get("checkpoint", "")))
                await self._parts.checkpoints.answer(checkpoint, answer.value, Answerer(owner, decision))
            except (UnknownCheckpoint, CheckpointClosed, BadCheckpointAnswer) as error:
                log.info("answer_not_taken", run=identity.run.id, error=type(error).__name__)


class _RunTurn:
    """One turn of a run: interprets it from the beginning to an ending or a suspension. At its deadline, a run stops and is undone."""

    def __init__(self, parts: EngineParts, identity: RunIdentity, owner: str) -> None:
        self._parts = parts
        self._identity = identity
        self._owner = owner
        self._evaluator = parts.evaluator.for_owner(owner)

    async def events(self, begun: RunRow) -> list[Event]:
        """The last events of the turn. Raises RunTaken, and WriteFailed, ReadFailed and ShuttingDown: then another turn goes on."""
        store = self._parts.store
        row = await store.begin(begun)
        try:
            document = await self._parts.versions.document(row.key.tenant, row.workflow, row.version)
        except DocumentRefused as error:
            return [await self._wait_for_other_release(row, error)]
        if document is None:
            return [Failed("The version of the workflow that this run began with is gone.")]
        await store.clear_suspension(row.key)
        ends_at, runs_max = _deadline_of(document, row), document.document.metadata.gateway.runs_max
        if runs_max is not None and (before := await self._take_place(document, row, runs_max, ends_at)) is not None:
            return [await self._queue(runs_max, before, ends_at)]
        try:
            return await self._outcome(document, row, ends_at)
        except RightsEnded as ended:
            return [await self._end_without_rights(document, ended)]

    async def _take_place(self, document: Document, row: RunRow, runs_max: int, ends_at: int) -> int | None:
        """None for a run that may go on, else how many runs wait before it. After its deadline, a run needs a place to be undone only."""
        is_late = ends_at <= self._parts.store.now()
        return None if is_late and not can_undo(document) else await self._parts.places.take(row, runs_max, is_first=is_late)

    async def _queue(self, runs_max: int, before: int, ends_at: int) -> Event:
        """Has the run wait for its turn. A run that ends or waits, in any process, makes room."""
        note = f"waits for its turn: the workflow has {runs_max} runs at work, and {before} wait before this one"
        ends = ends_at if ends_at > self._parts.store.now() else None  # of a late run, only its turn has it go on
        await self._parts.store.suspend(self._identity.run, Suspension(note=note, is_partial=True, is_queued=True, ends_at=ends))
        return Suspended(_message(self._identity, note))

    async def _outcome(self, document: Document, row: RunRow, ends_at: int) -> list[Event]:
        effects = await self._effects(row)
        if effects.undo_began is None and self._parts.store.now() < ends_at:
            try:
                return await self._settle(effects, self._interpret(document, row, effects), ends_at)
            except TimeoutError:
                log.info("run_late", run=row.key.id)
            effects = await self._effects(row)  # with what was stored at the last moment
        if effects.undo_began is None:
            await self._parts.steps.cancel_open_of(self._identity)
            effects.is_over = True
        undone_until = max(ends_at, effects.undo_began or self._parts.store.now()) + UNDO_GRACE * 1000
        try:
            return await self._settle(effects, self._interpret(document, row, effects, DEADLINE_FAULT), undone_until)
        except TimeoutError:
            return await self._fail(replace(DEADLINE_FAULT, detail=f"{DEADLINE_TEXT} {NOT_UNDONE_TEXT}"))

    async def _interpret(self, document: Document, row: RunRow, effects: JournaledEffects, late: Fault | None = None) -> Any:
        """The run's output. With `late`, the run stops where its journal ends and is undone.

        Raises WorkflowError, RunSuspended and what the store raises. A defect of the gateway ends a run as any error does.
        """
        interpreter = Interpreter(document, self._evaluator, effects, TASK_FUNCTIONS, row.key.id, inputs=row.inputs)
        try:
            return await (interpreter.run(row.input) if late is None else interpreter.stop(row.input, late))
        except (WorkflowError, RunSuspended, RunTaken, RightsEnded, *POSTPONING):
            raise
        except Exception as error:  # the root of a run: what it has done is to be undone after any error
            log.exception("run_broke", run=row.key.id, workflow=row.workflow)
            raise WorkflowError(await interpreter.undo(replace(BROKEN_FAULT, detail=f"{BROKEN_TEXT} ({type(error).__name__})"))) from error

    async def _settle(self, effects: JournaledEffects, work: Coroutine[Any, Any, Any], until: int) -> list[Event]:
        """The events with which a turn ends. Raises TimeoutError at the moment `until`, and nothing of the work goes on then."""
        running = asyncio.ensure_future(work)
        left = until - self._parts.store.now()
        try:
            async with asyncio.timeout(max(0.0, left / 1_000_000)):
                output = await asyncio.shield(running)
        except RunSuspended:
            return [await self._suspend(effects, until)]
        except WorkflowError as error:
            return await self._fail(error.fault)
        finally:
            effects.is_stopping = True  # before its tasks end: no branch goes on with their ending
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await self._close()
        return [ArtifactPiece(Artifact(OUTPUT_ARTIFACT, (Part(data=output, media_type="application/json"),))), Done()]

    async def _effects(self, row: RunRow) -> JournaledEffects:
        parts = self._parts
        journal = await Journal.open(parts.store, row)
        checkpoints = CheckpointSteps(
            parts.checkpoints, parts.relaxations, self._evaluator, run=row, owner=self._owner, now=parts.store.now
        )
        return JournaledEffects(
            self._identity,
            parts.store,
            journal,
            parts.steps,
            checkpoints,
            recorder=StepRecorder(parts.audit, self._identity),
            targets=parts.targets,
            events=parts.events,
            claims=parts.claims,
            started=row.started,
        )

    async def _suspend(self, effects: JournaledEffects, ends_at: int) -> Event:
        """Stores what the run waits for. What waits of branches that lost is withdrawn."""
        if not self._parts.steps.is_published(self._identity):
            await self._close()
            return Failed(REMOVED_TEXT)
        waits, run = effects.waits, self._identity.run
        waiting = Suspension(
            waits.wake_at,
            waits.note,
            waits.task_states,
            waits.checkpoint_ids,
            waits.listens,
            is_paused=waits.is_paused,
            waits_for_sign_in=waits.is_for_sign_in,
            ends_at=ends_at,
        )
        withdrawing = None if waits.is_paused else self._parts.checkpoints.withdrawing_write(run, waits.checkpoint_ids)
        for task_id in await self._parts.store.suspend(run, waiting, withdrawing):
            await self._parts.steps.cancel_task(self._identity, task_id)
        if waits.is_for_sign_in:
            return Ask(_message(self._identity, waits.note), auth=True)
        if waits.is_for_owner:
            return Ask(prompts=waits.prompts)
        return Suspended(_message(self._identity, waits.note) if waits.note else None)

    async def _wait_for_other_release(self, row: RunRow, error: DocumentRefused) -> Event:
        """Leaves a run whose document this release refuses to one that takes it: ended here, nothing of it could be undone."""
        now, note = self._parts.store.now(), f"{UNREADABLE_TEXT} {error}"[:DETAIL_MAX]
        ends_at = row.started + milliseconds_of(DEADLINE) * 1000
        if now >= ends_at:
            return (await self._fail(replace(UNREADABLE_FAULT, detail=note)))[0]
        log.warning("document_not_read", run=row.key.id, workflow=row.workflow, version=row.version, problem=str(error)[:DETAIL_MAX])
        await self._parts.store.suspend(row.key, Suspension(now + UNREADABLE_US, note, is_partial=True, ends_at=ends_at))
        return Suspended(_message(self._identity, note))

    async def _end_without_rights(self, document: Document, ended: RightsEnded) -> Event:
        """The ending of a run whose starter has lost the rights: nothing is undone, since that would need rights too."""
        await self._close()
        store, run = self._parts.store, self._identity.run
        left_open = open_effects(document, await read_stored_steps(store, run), await children_of(store.database, run))
        names = ", ".join(each.step or each.target for each in left_open)
        return Failed(f"{RIGHTS_ENDED_TEXT} {ended}.{f' Not undone: {names}.' if names else ''}", rejected=True)

    async def _fail(self, fault: Fault) -> list[Event]:
        await self._close()
        await self._parts.store.fail(self._identity.run, msgspec.json.encode(fault).decode())
        return [fault_ending(fault)]

    async def _close(self) -> None:
        """Ends what the run has begun and waits for no longer, and releases what it has claimed."""
        await self._parts.steps.cancel_open_of(self._identity)
        await self._parts.claims.claims.release_known(self._identity.run)
        await self._parts.checkpoints.withdraw(self._identity.run)


def _identity_of(call: Call, begun_by: Message | None) -> RunIdentity:
    held, traceparent = call.grant.delegation, call.headers.get(TRACEPARENT, "")
    trace = TraceContext(call.grant.decision.trace_id, {TRACEPARENT: traceparent}) if traceparent else TraceContext()
    run, decision = RunKey(held.principal.tenant, held.task_id), call.grant.decision
    return RunIdentity(run, call.target.name, held.grant_id, trace, decision.txn, _skill_of(begun_by))


def _skill_of(message: Message | None) -> str:
    metadata = message.metadata if message is not None else UNSET
    chosen = metadata.get(SKILL_SELECTION) if isinstance(metadata, dict) else None
    return str(chosen.get("skillId", "")) if isinstance(chosen, dict) else ""


def _new_run(identity: RunIdentity, call: Call, given: Any, now: int) -> RunRow:
    return RunRow(identity.run, identity.workflow, call.target.workflow_version, given, now)


def _deadline_of(document: Document, row: RunRow) -> int:
    """In microseconds since 1970."""
    return row.started + milliseconds_of(document.document.metadata.gateway.deadline) * 1000


def _input_of(message: Message) -> Any:
    """The input of a run: the first data part of its message, else its text, else an empty object."""
    data = next((part.data for part in message.parts if part.data is not UNSET), UNSET)
    if data is not UNSET:
        return data
    text = "\n".join(part.text for part in message.parts if isinstance(part.text, str))
    return {"text": text} if text else {}


def _message(identity: RunIdentity, text: str) -> Message:
    return Message(f"{identity.run.id}:waits", Role.AGENT, (Part(text=text),))


_: type[Adapter] = WorkflowAdapter
