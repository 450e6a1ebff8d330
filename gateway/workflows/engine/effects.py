"""Effects of a run: each result is journaled, so that a run that begins again in any process finds what was done."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final, TypeVar

from msgspec import UNSET
from msgspec.structs import replace

from adapters.contract import Prompt
from adapters.task import Message, Task, TaskState, text_of
from gateway.calls.costs.task_costs import read_task_costs
from gateway.concurrency.background import run_in_background
from gateway.storage.database import Batch, ReadFailed, WriteFailed
from gateway.tasks.contracts.prompts import open_prompts
from gateway.tasks.log import TaskRow, to_rfc3339
from gateway.tasks.turns.in_flight import ShuttingDown
from gateway.workflows.engine.checkpoint_steps import CHECKPOINTS, CheckpointSteps
from gateway.workflows.engine.event_steps import EventSteps, fault_of_sending
from gateway.workflows.engine.requests import build_request, resolve_http, sub_run_request
from gateway.workflows.engine.results import agent_output, check_completed
from gateway.workflows.engine.steps import NoPlace, RunIdentity, SignInNeeded, StepAwaitsTask, StepCalls, StepRequest
from gateway.workflows.engine.suspension.claim_steps import ClaimParts, ClaimSteps
from gateway.workflows.engine.suspension.time_limits import LIMITS, TimeLimit, arm_limits
from gateway.workflows.engine.suspension.waits import Wait, WaitCollector
from gateway.workflows.engine.targets import StepTargets
from gateway.workflows.engine.trail import StepNotes, StepRecorder, trail_of
from gateway.workflows.interpreter.compensations import ORDER, is_undoing
from gateway.workflows.interpreter.effects import LookUp, PreparedCall, RunSuspended, Spent, StepKey, SubRun, Wanted, WantedClaim
from gateway.workflows.interpreter.errors import OUTCOME_UNKNOWN, Fault, WorkflowError, standard_error
from gateway.workflows.problems import EventConflict
from gateway.workflows.runs.journal import CALL, CLAIM, DUE, LIMIT, NOTHING, PLAN, RECORD, Journal, Result, StepRow
from gateway.workflows.runs.people.checkpoints import PENDING
from gateway.workflows.runs.store import RunStore, key_text
from gateway.workflows.runs.values import canonical_value
from registry.cards.prices import format_price

A = TypeVar("A")
Perform = Callable[[StepKey, A, StepNotes], Awaitable[Any]]
"""Has the effect of a step, with what the step was given, and notes what becomes known of it."""
Also = Callable[[Any], Callable[[Batch], object]]
"""What is written in the commit of a result, for its value."""
HTTP: Final = "http"
AWAKE_US: Final = 2_000_000  # a shorter wait is spent in this process
SIGN_IN_TEXT: Final = "the roles of the person who started the run count no more; the run goes on when they sign in and look at it"
AUTH_TEXT: Final = "waits until people allow it, or until an account is connected"


class _JournaledResults:
    """The results of a run's effects, each journaled once. Its methods perform what the journal lacks."""

    def __init__(
        self,
        identity: RunIdentity,
        store: RunStore,
        journal: Journal,
        steps: StepCalls,
        checkpoints: CheckpointSteps,
        *,
        recorder: StepRecorder,
        targets: StepTargets,
        events: EventSteps,
        claims: ClaimParts,
        started: int,
    ) -> None:
        self.waits = WaitCollector()
        self._claims = ClaimSteps(claims, identity, self.waits)
        self.is_stopping = False  # this process stops working on the run: what it began goes on elsewhere
        self.is_over = False  # the time of the run is over: nothing new begins but what undoes it
        self._identity = identity
        self._store = store
        self._journal = journal
        self._steps = steps
        self._checkpoints = checkpoints
        self._recorder = recorder
        self._targets = targets
        self._events = events
        self._now = started

    async def _perform_once(
        self,
        key: StepKey,
        perform: Perform[A],
        argument: A,
        also: Callable[[Any], Callable[[Batch], object]] | None = None,
        kind: str = CALL,
    ) -> Any:
        """The journaled result of a key, or that of `perform`, which is journaled. Raises WorkflowError and RunSuspended.

        `also` gets the value of a result, and returns what is written in the same commit.
        """
        if (step := self._journal.find(key_text(key))) is not None:
            return self._replayed(step)
        self._check_may_begin(key)
        self._journal.check_room(key)
        await self._arm_limits()
        notes = StepNotes(self._store.now())
        try:
            with self._leaving_on_outage():
                result = Result(value=canonical_value(await perform(key, argument, notes)))
        except SignInNeeded as needed:
            self._wait_for_sign_in(key)
            raise RunSuspended from needed
        except NoPlace as busy:
            self.waits.add_moment(key, self._store.now() + busy.retry_after * 1_000_000, f"{key.pointer}: waits for a place: {busy}")
            raise RunSuspended from busy
        except WorkflowError as error:
            result = Result(fault=error.fault if error.fault.instance else replace(error.fault, instance=key.pointer))
            notes.decision_id = error.decision_id or notes.decision_id
        trail = trail_of(notes, argument, result)
        row = StepRow(key_text(key), kind, notes.task_id, notes.started, self._store.now(), result, key, trail)
        with self._leaving_on_outage():
            return self._replayed(await self._add(row, also(result.value) if also is not None and result.fault is UNSET else None))

    async def _add(self, row: StepRow, more: Callable[[Batch], object] | None) -> StepRow:
        """The step as it is journaled, with its record in the audit and `more` in the same commit. What can't be stored is its fault."""

        def write(batch: Batch) -> None:
            self._recorder.record(row, batch)
            if more is not None:
                more(batch)

        try:
            return await self._journal.add(row, write)
        except EventConflict as error:
            failed = replace(row, result=Result(fault=fault_of_sending(error, row.step_key.pointer).fault))
        except WorkflowError as error:  # the step has had its effect, so the journal has to know of it
            failed = replace(row, result=Result(fault=error.fault), trail=replace(row.trail, input=NOTHING, output_digest=""))
        return await self._journal.add(failed, partial(self._recorder.record, failed))

    @property
    def undo_began(self) -> int | None:
        """When the undoing of the run began, in microseconds since 1970; None if it has not."""
        step = self._journal.find(key_text(ORDER))
        return None if step is None else step.ended

    def _check_may_begin(self, key: StepKey) -> None:
        """Raises RunSuspended where no step may begin: the run is paused, or its time is over."""
        if self.is_over:
            if not is_undoing(key):
                raise RunSuspended
        elif self._journal.is_paused:
            self.waits.add_pause(key)
            raise RunSuspended

    @contextmanager
    def _leaving_on_outage(self) -> Iterator[None]:
        """Has the other branches leave what they have begun as it is, where the database fails: the run goes on when it is back."""
        try:
            yield
        except (WriteFailed, ReadFailed, ShuttingDown):
            self.is_stopping = True
            raise

    def _wait_for_sign_in(self, key: StepKey) -> None:
        self.waits.add_sign_in(key, f"{key.pointer}: {SIGN_IN_TEXT}")

    def _replayed(self, step: StepRow) -> Any:
        self._now = max(self._now, step.ended)
        if step.result.fault is not UNSET:
            raise WorkflowError(step.result.fault)
        return step.result.value

    async def _arm_limits(self) -> None:
        """Never returns in a task whose time is over, or that has lost its claim: the end of that task cancels this effect."""
        await arm_limits(self._store.now())
        await self._claims.wait_if_lost()

    async def record(self, key: StepKey, value: Any) -> Any:
        return await self._record(key, "", RECORD, value)

    async def recorded(self, key: StepKey) -> Any:
        step = self._journal.find(key_text(key))
        return None if step is None else step.result.value

    async def _record(self, key: StepKey, suffix: str, kind: str, value: Any) -> Any:
        text = key_text(key) + suffix
        if (step := self._journal.find(text)) is not None:
            return step.result.value
        if self.is_over and not is_undoing(key):
            raise RunSuspended
        now = self._store.now()
        with self._leaving_on_outage():
            step = await self._journal.add(StepRow(text, kind, "", now, now, Result(value=canonical_value(value)), key))
        return step.result.value

    def hold(self, key: StepKey, value: Any) -> None:
        self._journal.hold(key, value)

    def abandon(self, key: StepKey) -> None:
        self.waits.drop(key)


class JournaledEffects(_JournaledResults):
    """The port Effects over the journal of one run. Used for one interpretation, from the beginning to an ending or a suspension."""

    async def call(self, key: StepKey, call: PreparedCall) -> Any:
        if call.function in CHECKPOINTS:
            return await self._perform_once(key, self._ask_people, call)
        return await self._perform_once(key, self._delegate_call, call)

    async def run_workflow(self, key: StepKey, workflow: SubRun) -> Any:
        if not workflow.awaited:
            return await self._perform_once(key, self._detach_run, workflow)
        return await self._perform_once(key, self._delegate_run, workflow)

    async def _delegate_call(self, key: StepKey, call: PreparedCall, notes: StepNotes) -> Any:
        if call.function == HTTP:
            call = resolve_http(key, call, self._steps.servers(self._identity))
        request, read_output = build_request(key, call)
        try:
            return read_output(await self._delegate(key, request, notes))
        except WorkflowError as error:
            if error.fault.type == OUTCOME_UNKNOWN and _is_idempotent(call.metadata):
                raise standard_error("communication", str(error), key.pointer) from error
            raise

    async def _delegate_run(self, key: StepKey, workflow: SubRun, notes: StepNotes) -> Any:
        return agent_output(await self._delegate(key, sub_run_request(workflow), notes))

    async def _detach_run(self, key: StepKey, workflow: SubRun, notes: StepNotes) -> Any:
        """Starts another run, and has its id as the value of the step's row."""
        request = sub_run_request(workflow)
        notes.target = request.target
        row = await self._steps.detach(self._identity, key, request)
        notes.task_id, notes.decision_id = row.id, row.decision_id
        return {"run": row.id}

    async def _delegate(self, key: StepKey, request: StepRequest, notes: StepNotes) -> Task:
        """The completed task of a step. Raises WorkflowError, and RunSuspended while the task waits for a person."""
        notes.target = request.target
        try:
            row, task = await self._steps.run(self._identity, key, request)
        except StepAwaitsTask as waiting:
            self._wait_for_task(key, request, waiting.row, waiting.task)
            raise RunSuspended from waiting
        except asyncio.CancelledError:
            if not self.is_stopping:  # a time limit is over, or another branch won
                run_in_background(self._steps.cancel(self._identity, request.agent, key), "step_not_canceled", run=self._identity.run.id)
            raise
        notes.add_task(row, task)
        self._targets.outcomes.record(self._identity.run.tenant, request.agent, completed=task.status.state is TaskState.COMPLETED)
        check_completed(task, request.target, key.pointer)
        return task

    def _wait_for_task(self, key: StepKey, request: StepRequest, row: TaskRow, task: Task) -> None:
        message = task.status.message
        text = text_of(message.parts) if isinstance(message, Message) else ""
        prompt = None
        if row.state is TaskState.INPUT_REQUIRED:
            asked = open_prompts(row.vendor_ref)
            schema = asked[0].schema if len(asked) == 1 else None
            prompt = Prompt(f"task:{row.id}", text or request.target, schema=schema, token={"task": row.id, "agent": row.agent})
        said = f"asks: {text}" if prompt else f"waits: {text}" if row.state is TaskState.WORKING else AUTH_TEXT
        self.waits.add_task(Wait(key, f"{key.pointer}: {request.target} {said}", task_id=row.id, task_state=row.state.value, prompt=prompt))

    async def _ask_people(self, key: StepKey, call: PreparedCall, notes: StepNotes) -> Any:
        """The answer to a checkpoint. Raises WorkflowError, and RunSuspended while there is none."""
        notes.target = "people"
        outcome = await self._checkpoints.ask(self._identity, key, call)
        notes.started = min(notes.started, outcome.checkpoint.created)
        if outcome.is_pending:
            if outcome.checkpoint.state == PENDING:
                self.waits.add_checkpoint(key, outcome.checkpoint)
            raise RunSuspended
        return outcome.value

    async def sleep(self, key: StepKey, milliseconds: int) -> None:
        due = await self._record(key, "#due", DUE, self._store.now() + milliseconds * 1000)
        left = due - self._store.now()
        if left > 0 and self.is_over and not is_undoing(key):
            raise RunSuspended
        if left > AWAKE_US:
            await self._arm_limits()
            self.waits.add_moment(key, due, f"{key.pointer}: waits until {to_rfc3339(due)}")
            raise RunSuspended
        if left > 0:
            await self._arm_limits()
            await asyncio.sleep(left / 1_000_000)
        self._now = max(self._now, due)

    def time_limit(self, key: StepKey, milliseconds: int) -> AbstractAsyncContextManager[None]:
        return self._limit(key, milliseconds)

    @asynccontextmanager
    async def _limit(self, key: StepKey, milliseconds: int) -> AsyncIterator[None]:
        due = await self._record(key, "#limit", LIMIT, self._store.now() + milliseconds * 1000)
        try:
            async with asyncio.timeout(None) as timer:
                entered = LIMITS.set((*LIMITS.get(), TimeLimit(timer, due)))
                try:
                    yield
                except RunSuspended:
                    self.waits.add_moment(key, due, "")
                    raise
                finally:
                    LIMITS.reset(entered)
        except TimeoutError:
            self.abandon(key)
            raise

    @asynccontextmanager
    async def claim(self, key: StepKey, wanted: WantedClaim) -> AsyncIterator[Mapping[str, Any]]:
        is_new = self._journal.find(key_text(key)) is None
        taken = await self._perform_once(key, self._take_claim, wanted, partial(self._claims.keeping_write, key, wanted), CLAIM)
        async with self._claims.hold(key, taken, is_new=is_new):
            yield taken

    async def _take_claim(self, key: StepKey, wanted: WantedClaim, notes: StepNotes) -> Any:
        notes.target = f"claim {wanted.subject}"
        now = self._store.now()
        due = await self._record(key, "#due", DUE, now + wanted.wait * 1000) if wanted.wait else now
        return await self._claims.take(key, wanted, due)

    async def settle(self, key: StepKey) -> None:
        await self._claims.settle(key)

    async def look_up(self, key: StepKey, question: LookUp) -> Any:
        if (step := self._journal.find(key_text(key))) is not None:
            return step.result.value
        if self.is_over and not is_undoing(key):
            raise RunSuspended
        try:
            with self._leaving_on_outage():
                found = await self._look_up(key, question)
        except SignInNeeded as needed:
            self._wait_for_sign_in(key)
            raise RunSuspended from needed
        return await self._record(key, "", RECORD, found)

    async def _look_up(self, key: StepKey, question: LookUp) -> Any:
        if isinstance(question, Spent):
            return await self._costs_of(question.calls)
        return await self._targets.answer(self._identity, key, question)

    async def _costs_of(self, calls: Sequence[StepKey]) -> list[str | None]:
        """What calls have cost with all that they caused; None where any part of it is unknown."""
        asked = (self._identity.run.tenant, (self._identity.txn,))
        found = await self._store.database.read(lambda connection: read_task_costs(connection, *asked))
        steps = [self._journal.find(key_text(key)) for key in calls]
        costs = [None if step is None else found.of(step.task_id) for step in steps]
        return [None if cost is None or cost.unpriced else format_price(cost.amount) for cost in costs]

    async def record_plan(self, key: StepKey, plan: Mapping[str, Any]) -> Any:
        return await self._record(key, "", PLAN, plan)

    async def emit(self, key: StepKey, event: Mapping[str, Any], sensitivity: int | None = None) -> Mapping[str, Any]:
        def storing(made: Any) -> Callable[[Batch], object]:
            return self._events.event_write(self._identity, self._checkpoints.owner, made, self._store.now())

        return dict(await self._perform_once(key, partial(self._make_event, sensitivity), event, storing))

    async def _make_event(self, sensitivity: int | None, key: StepKey, event: Mapping[str, Any], notes: StepNotes) -> Any:
        notes.target = "events"
        return await self._events.complete(self._identity, key, event, self._store.now(), sensitivity=sensitivity)

    async def listen(self, key: StepKey, wanted: Wanted) -> list[Any]:
        senders, events = set[str](), self._events
        receive = partial(self._receive, senders)
        try:
            return list(await self._perform_once(key, receive, wanted, lambda _: events.closing_write(self._identity.run, key, senders)))
        except asyncio.CancelledError:
            if not self.is_stopping:  # a time limit is over, or another branch won
                run_in_background(self._events.stop(self._identity.run, key), "listening_not_stopped", run=self._identity.run.id)
            raise

    async def _receive(self, senders: set[str], key: StepKey, wanted: Wanted, notes: StepNotes) -> Any:
        """The events that end the listening, with their `senders`. Raises WorkflowError, and RunSuspended while there are too few."""
        notes.target = "events"
        try:
            found = await self._events.receive(self._identity, self._checkpoints.owner, key, wanted)
        except WorkflowError:
            await self._events.stop(self._identity.run, key)
            raise
        if found is not None:
            senders.update(found.senders)
            return found.events
        self.waits.add_event(key)
        raise RunSuspended

    def now(self) -> int:
        return self._now

    def entered(self, key: StepKey, input: Any) -> None:
        """Nothing is kept of tasks without an effect: they are computed again."""

    def left(self, key: StepKey, output: Any, fault: Fault | None) -> None:
        """Nothing, as for `entered`."""


def _is_idempotent(metadata: Mapping[str, Any]) -> bool:
    extras = metadata.get("gateway")
    return isinstance(extras, Mapping) and extras.get("idempotent") is True
