"""The adapter of workflows: a run is the task of the workflow's agent, and each turn interprets its document from the beginning."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
import structlog
from msgspec import UNSET

from adapters.contract import (
    Adapter,
    Answer,
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
    VendorRef,
)
from adapters.task import Artifact, Message, Part, Role, Task
from gateway.telemetry.spans import TRACEPARENT, TraceContext
from gateway.workflows.cloud_events.concurrency import RunPlaces
from gateway.workflows.coordination.kinds import KINDS
from gateway.workflows.dsl.document import Document
from gateway.workflows.dsl.durations import milliseconds_of
from gateway.workflows.engine.effects import JournaledEffects
from gateway.workflows.engine.event_steps import EventSteps
from gateway.workflows.engine.questions import PeopleSteps
from gateway.workflows.engine.requests import answer_parts
from gateway.workflows.engine.steps import RightsEnded, RunIdentity, StepCalls
from gateway.workflows.engine.targets import StepTargets
from gateway.workflows.engine.trail import StepRecorder
from gateway.workflows.engine.waits import REMOVED_TEXT
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.interpreter.effects import RunSuspended
from gateway.workflows.interpreter.errors import Fault, WorkflowError
from gateway.workflows.interpreter.interpreter import Interpreter
from gateway.workflows.problems import BadCheckpointAnswer, CheckpointClosed, Problem, UnknownCheckpoint
from gateway.workflows.runs.journal import Journal, read_stored_steps
from gateway.workflows.runs.open_effects import children_of, open_effects
from gateway.workflows.runs.people.checkpoints import Answerer, Checkpoints
from gateway.workflows.runs.people.relaxations import Relaxations
from gateway.workflows.runs.store import RunKey, RunRow, RunStore, RunTaken, Waiting
from gateway.workflows.runs.versions import Versions
from policies.audit.log import AuditLog
from registry.cards.card import VERSION_FACT, Registration
from registry.cards.republish import SKILL_SELECTION

OUTPUT_ARTIFACT: Final = "output"
FAULT_MEDIA_TYPE: Final = "application/problem+json"
RIGHTS_ENDED_TEXT: Final = "The run stopped, because the rights under which it was started have ended."
DEADLINE_TEXT: Final = "The run took longer than its workflow allows (metadata.gateway.deadline)."
MISFIT_TEXT: Final = "The workflow no longer fits what it calls, so it starts no new runs."
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
    relaxations: Relaxations
    fitness: FitnessCheck
    audit: AuditLog
    targets: StepTargets
    events: EventSteps


class WorkflowAdapter:
    """Runs documents. A run that waits ends its turn as suspended; `RunWaker` has it go on, in any process."""

    def __init__(self, parts: EngineParts) -> None:
        self._parts = parts

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """Yields what becomes of a run until it ends, or waits. Answers of the owner reach what the run waits for first."""
        who = _identity_of(call, turn.message)
        if turn.answers:
            await self._deliver_answers(who, call, turn.answers)
        problems = await self._parts.fitness.problems_of(call.target)
        if problems and await self._parts.store.find(who.run) is None:
            yield _misfit(problems)
            return
        row = _new_run(who, call, _input_of(turn.message), self._parts.store.now())
        async for event in self._interpret(who, call, row):
            yield event

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        """Goes on with a run that was suspended, or whose process has ended. `known` has the message that began it."""
        who = _identity_of(call, known.history[0] if known.history else None)
        given = _input_of(known.history[0]) if known.history else {}
        async for event in self._interpret(who, call, _new_run(who, call, given, self._parts.store.now())):
            yield event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        """The run stops with its turn, and nothing of it goes on after its task has ended."""
        return True

    async def _interpret(self, who: RunIdentity, call: Call, begun: RunRow) -> AsyncIterator[Event]:
        yield RefLearned(VendorRef(task_id=who.run.id))
        yield Progress()
        parts = self._parts
        row = await parts.store.begin(begun)
        document = await parts.versions.document(who.run.tenant, row.workflow, row.version)
        if document is None:
            yield Failed("The version of the workflow that this run began with is gone.")
            return
        await parts.store.resume(who.run)
        ends_at, runs_max = _deadline_of(document, row), document.document.metadata.gateway.runs_max
        if runs_max is not None and ends_at > parts.store.now() and (before := await parts.places.take(row, runs_max)) is not None:
            yield await self._queue(who, runs_max, before, ends_at)
            return
        effects = await self._effects(who, call, row)
        try:
            for event in await self._outcome(document, who, row, effects):
                yield event
        finally:
            effects.is_stopping = True

    async def _queue(self, who: RunIdentity, runs_max: int, before: int, ends_at: int) -> Event:
        """Has a run wait for its turn. A run that ends, in any process, makes room."""
        note = f"waits for its turn: the workflow has {runs_max} runs at work, and {before} wait before this one"
        await self._parts.store.suspend(who.run, Waiting(note=note, ends_at=ends_at))
        return Suspended(_message(who, note))

    async def _effects(self, who: RunIdentity, call: Call, row: RunRow) -> JournaledEffects:
        parts = self._parts
        journal = await Journal.open(parts.store, row)
        owner = call.grant.delegation.principal.owner_key
        people = PeopleSteps(parts.checkpoints, parts.relaxations, parts.evaluator, version=row.version, owner=owner, now=parts.store.now)
        return JournaledEffects(
            who,
            parts.store,
            journal,
            parts.steps,
            people,
            recorder=StepRecorder(parts.audit, who),
            targets=parts.targets,
            events=parts.events,
            started=row.started,
        )

    async def _outcome(self, document: Document, who: RunIdentity, row: RunRow, effects: JournaledEffects) -> list[Event]:
        """The last events of the turn."""
        interpreter = Interpreter(document, self._parts.evaluator, effects, KINDS, who.run.id, inputs=row.inputs)
        ends_at = _deadline_of(document, row)
        left = ends_at - self._parts.store.now()
        work = asyncio.ensure_future(interpreter.run(row.input))
        try:
            async with asyncio.timeout(max(0.0, left / 1_000_000)):
                output = await asyncio.shield(work)
        except RunSuspended:
            return [await self._suspend(who, effects, ends_at)]
        except WorkflowError as error:
            await self._parts.steps.cancel_open_of(who)
            await self._parts.store.fail(who.run, msgspec.json.encode(error.fault).decode())
            return [_failure(error.fault)]
        except RightsEnded as ended:
            return [await self._rights_ended(document, who, ended)]
        except TimeoutError:
            effects.is_stopping = True
            work.cancel()  # before its tasks end: no branch goes on with their ending
            await asyncio.gather(work, return_exceptions=True)
            await self._parts.steps.cancel_open_of(who)
            return [Failed(DEADLINE_TEXT)]
        except RunTaken:
            log.info("run_taken", run=who.run.id)
            return [Suspended()]  # refused too, since the task is another process's
        finally:
            effects.is_stopping = True
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        await self._parts.steps.cancel_open_of(who)
        return [ArtifactPiece(Artifact(OUTPUT_ARTIFACT, (Part(data=output, media_type="application/json"),))), Done()]

    async def _rights_ended(self, document: Document, who: RunIdentity, ended: RightsEnded) -> Event:
        """The ending of a run whose starter has lost the rights: nothing is undone, since that would need rights too."""
        await self._parts.steps.cancel_open_of(who)
        store = self._parts.store
        left_open = open_effects(document, await read_stored_steps(store, who.run), await children_of(store.database, who.run))
        names = ", ".join(each.step or each.target for each in left_open)
        return Failed(f"{RIGHTS_ENDED_TEXT} {ended}.{f' Not undone: {names}.' if names else ''}", rejected=True)

    async def _suspend(self, who: RunIdentity, effects: JournaledEffects, ends_at: int) -> Event:
        if not self._parts.steps.is_published(who):
            return Failed(REMOVED_TEXT)
        waits = effects.waits
        waiting = Waiting(
            waits.wake_at,
            waits.note,
            tuple(waits.task_ids),
            tuple(waits.checkpoint_ids),
            is_paused=waits.is_paused,
            waits_for_sign_in=waits.is_for_sign_in,
            ends_at=ends_at,
        )
        await self._parts.store.suspend(who.run, waiting)
        if waits.is_for_sign_in:
            return Ask(_message(who, waits.note), auth=True)
        if waits.is_for_owner:
            return Ask(prompts=tuple(waits.prompts))
        return Suspended(_message(who, waits.note) if waits.note else None)

    async def _deliver_answers(self, who: RunIdentity, call: Call, answers: tuple[Answer, ...]) -> None:
        """Hands the owner's answers to checkpoints and to tasks of steps. What was answered meanwhile stays as it is."""
        owner, decision = call.grant.delegation.principal.owner_key, call.grant.decision.id
        for answer in answers:
            token = answer.prompt.token if isinstance(answer.prompt.token, Mapping) else {}
            if "task" in token:
                await self._parts.steps.answer(who, token["agent"], token["task"], answer_parts(answer.value))
                continue
            if len(call.grant.delegation.path) > 1:  # an agent sent it, and questions to people are for people
                log.warning("answer_not_taken", run=who.run.id, error="NotInPerson")
                continue
            try:
                checkpoint = await self._parts.checkpoints.find(who.run.tenant, str(token.get("checkpoint", "")))
                await self._parts.checkpoints.answer(checkpoint, answer.value, Answerer(owner, decision))
            except (UnknownCheckpoint, CheckpointClosed, BadCheckpointAnswer) as error:
                log.info("answer_not_taken", run=who.run.id, error=type(error).__name__)


def _identity_of(call: Call, begun_by: Message | None) -> RunIdentity:
    held, traceparent = call.grant.delegation, call.headers.get(TRACEPARENT, "")
    trace = TraceContext(call.grant.decision.trace_id, {TRACEPARENT: traceparent}) if traceparent else TraceContext()
    run, decision = RunKey(held.principal.tenant, held.task_id), call.grant.decision
    return RunIdentity(run, call.target.name, held.grant_id, trace, decision.txn, _skill_of(begun_by))


def _skill_of(message: Message | None) -> str:
    metadata = message.metadata if message is not None else UNSET
    chosen = metadata.get(SKILL_SELECTION) if isinstance(metadata, dict) else None
    return str(chosen.get("skillId", "")) if isinstance(chosen, dict) else ""


def _new_run(who: RunIdentity, call: Call, given: Any, now: int) -> RunRow:
    return RunRow(who.run, who.workflow, str(call.target.facts.get(VERSION_FACT, "")), given, now)


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


def _misfit(problems: tuple[Problem, ...]) -> Failed:
    """The refusal of a new run, with each thing that no longer fits."""
    first = "; ".join(f"{each.path or '/'} (line {each.line}) {each.reason}" for each in problems[:5])
    more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
    words = f"{MISFIT_TEXT} {first}{more}"
    found = [{"line": each.line, "path": each.path, "reason": each.reason} for each in problems]
    parts = (Part(text=words), Part(data={"problems": found}, media_type=FAULT_MEDIA_TYPE))
    return Failed(words, Message("misfit", Role.AGENT, parts), rejected=True)


def _failure(fault: Fault) -> Failed:
    """A run that faulted, in words, with the problem details (RFC 7807) as data."""
    words = f"{fault.title or fault.type} at {fault.instance or '/'}: {fault.detail or ''}".rstrip(": ")
    shown = {name: value for name in Fault.__struct_fields__ if (value := getattr(fault, name)) is not UNSET}
    parts = (Part(text=words), Part(data=shown, media_type=FAULT_MEDIA_TYPE))
    return Failed(words, Message(f"fault-{fault.status}", Role.AGENT, parts))


def _message(who: RunIdentity, text: str) -> Message:
    return Message(f"{who.run.id}:waits", Role.AGENT, (Part(text=text),))


_: type[Adapter] = WorkflowAdapter
