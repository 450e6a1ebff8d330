"""Calls of agents: find the task and the agent, limit, authorize, record, run. `AgentCalls._open` shows the order of their effects."""

from functools import partial

import msgspec

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.oauth.agents import AUTH_OPTION
from adapters.task import Message, TaskState
from gateway.calls.agent_requests import (
    AgentRequest,
    AuthorizedRequest,
    approval_message_of,
    check_input_contract,
    combine_writes,
    new_task_row,
    prepare_turn,
    request_write,
    restore_unsent_message,
    ruling_request_for_agent,
    with_grant,
    with_own_ref,
)
from gateway.calls.authorizer import retry_while_history_changes
from gateway.calls.costs.reservations import Reservation
from gateway.calls.limits.meters import LimitReached, PayloadTooLarge, release
from gateway.calls.parts import CallParts
from gateway.calls.targets.front_door import FrontDoor
from gateway.calls.targets.unknown_names import UnknownNameDenied
from gateway.calls.turns.cancellation import CanceledTask, Cancellation
from gateway.calls.turns.pausing import PausedTask
from gateway.calls.turns.runner import PreparedTurn, TurnRunner
from gateway.state.effects.repetitions import TaskUnderWay
from gateway.tasks.contracts.prompts import BadPromptAnswer
from gateway.tasks.log import RUNNING_STATES, IdempotencyKeyUsed, TaskNotWaiting, TaskRow, UnknownTask
from gateway.tasks.reader import TaskReader, front_door_idempotency_key
from gateway.tasks.turns.recorder import TurnRecorder, TurnState
from gateway.tasks.turns.stores import TaskStores
from gateway.tasks.watcher import WaitingTaskWatcher
from gateway.telemetry.spans import TraceContext
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.rulings import Question
from registry.cards.card import WORKFLOW_KIND, Family, Registration
from registry.names import FRONT_DOOR
from registry.store import UnknownName


class AgentCalls:
    """Delegates messages to agents. Each message is a turn of a task. Every refusal is raised before the message is sent."""

    def __init__(
        self,
        parts: CallParts,
        stores: TaskStores,
        front_door: FrontDoor,
        *,
        turns: TurnRecorder,
        turn_runner: TurnRunner,
        watcher: WaitingTaskWatcher,
        cancellation: Cancellation,
    ) -> None:
        self.callees = parts.callees
        self.unknown_name_denials = parts.unknown_name_denials
        self._authorizer = parts.authorizer
        self._call_builder = parts.authorizer.call_builder
        self._pausing = parts.pausing
        self._upstreams = parts.upstreams
        self._in_flight = parts.in_flight
        self._telemetry = parts.telemetry
        self._costs = parts.costs
        self._find_facts = parts.find_facts
        self._stores = stores
        self._reader = TaskReader(stores.tasks)
        self._front_door = front_door
        self._turns = turns
        self._turn_runner = turn_runner
        self._watcher = watcher
        self.cancellation = cancellation

    async def send(self, caller: Caller, request: AgentRequest) -> TurnState:
        """Sends a message to an agent and returns the state of the turn when the agent has ended it."""
        ready = await self._prepare(caller, request)
        if isinstance(ready, TurnState):
            return ready
        turned = _check_answer_accepted(await self._turn_runner.run(ready))
        if turned.row.state is TaskState.WORKING:  # a run of a workflow is suspended, and goes on without a turn of this process
            return await self._reader.wait_for_end(turned)
        return await self._reader.read_whole(turned) if request.message.task_id else turned

    async def start(self, caller: Caller, request: AgentRequest) -> TurnState:
        """Sends a message to an agent and returns at once. The turn continues even if the caller disconnects."""
        ready = await self._prepare(caller, msgspec.structs.replace(request, is_watched=True))
        if isinstance(ready, TurnState):
            return ready
        self._turn_runner.run_in_background(ready)
        return await self._reader.read_whole(ready.opened) if request.message.task_id else ready.opened

    async def _prepare(self, caller: Caller, request: AgentRequest) -> PreparedTurn | TurnState:
        """Chooses the agent for a message to the front door, and prepares the call. A denial is recorded for an unknown name."""
        if request.agent == FRONT_DOOR:
            request = msgspec.structs.replace(request, idempotency_key=front_door_idempotency_key(request.idempotency_key))
            if (repeated := await self._find_repeated(caller, request)) is not None:  # another agent might be chosen now
                return repeated
            chosen = await self._front_door.agent_for(caller, request.message, request.skill)
            request = msgspec.structs.replace(request, agent=chosen)
        try:
            return await self._open(caller, request)
        except UnknownNameDenied:
            raise  # its denial is recorded already
        except UnknownName as unknown:
            await self.unknown_name_denials.check_name(unknown, caller, request.agent, request.message, request.trace_context.trace_id)
            raise

    async def _open(self, caller: Caller, request: AgentRequest) -> PreparedTurn | TurnState:
        """Takes a message through every stage before it is sent. Returns the turn, or the state of a task that is paused or repeated."""
        # Find: raises UnknownTask, TaskNotWaiting, UnknownName, NotReachable, BadMessage
        key = request.idempotency_key
        if key is not None and not request.is_key_new and (repeated := await self._find_repeated(caller, request)) is not None:
            return repeated
        previous = await self._find_continued_task(caller, request) if request.message.task_id else None
        target = self.callees.find(caller, request.agent, Family.AGENT)
        row = previous or with_own_ref(new_task_row(self._stores, caller, request), target)
        parent_id = caller.delegation.task_id
        self._in_flight.add_turn(row.id, parent_id)
        if previous:
            self._watcher.stop_watching(row.id)
        try:
            if target.family is Family.SERVER:
                self.callees.find_visible(caller, target.name)
            outgoing = restore_unsent_message(request, previous)
            ruling_request = ruling_request_for_agent(outgoing, target, row)
            # Limit: raises LimitReached, PayloadTooLarge
            deadline = self._call_builder.deadline_for(caller, request.trace_context)
            reservation = await self._acquire_shares(caller, outgoing, target, ruling_request, deadline)
            # Authorize and record: raises CallRefused, BudgetSpent, ContractBroken, IdempotencyKeyUsed, WriteFailed
            authorize = partial(self._authorize_and_record, caller, outgoing, target, ruling_request, previous=previous, row=row)
            ready = await retry_while_history_changes(partial(authorize, reservation=reservation, deadline=deadline))
            if isinstance(ready, TurnState):
                self._in_flight.remove_turn(row.id, parent_id)  # the task is paused
            return ready
        except BaseException as error:
            self._in_flight.remove_turn(row.id, parent_id)
            if isinstance(error, TaskUnderWay):
                return await self._reader.join(caller, error.task_id, wait_for_end=not request.is_watched)
            if isinstance(error, IdempotencyKeyUsed) and (repeated := await self._find_repeated(caller, request)) is not None:
                return repeated
            raise

    async def _acquire_shares(
        self, caller: Caller, request: AgentRequest, target: Registration, ruling_request: RulingRequest, deadline: float
    ) -> Reservation | None:
        """Counts the turn in the limits of the caller and the agent, and waits for a slot at the agent until the caller's deadline.

        Returns the reservation that the turn has to take from cost budgets, if any. Raises LimitReached and PayloadTooLarge, or
        UnknownNameDenied where the caller may not know of the agent.
        """
        act, task_id, slots = ruling_request.act, ruling_request.task_id, self._upstreams.slots
        try:
            shares = self._upstreams.limits.acquire(caller, act, request.message)
            if target.kind == WORKFLOW_KIND:  # a run holds no place: its steps do, and would wait for it
                release(shares)
                return None
            self._in_flight.hold_shares(task_id, shares)
            reserving = self._costs.reservation_for(caller, act, target) if self._costs.has_budget or caller.delegation.path else None
            reservation = None if reserving is None else await reserving
            slot = slots.try_acquire(caller, target) or await slots.wait_for_slot(caller, target, act, deadline)
        except (LimitReached, PayloadTooLarge) as refused:
            message = request.logged_message or request.message
            await self.unknown_name_denials.check_limit(refused, caller, act, message, request.trace_context.trace_id)
            raise
        self._in_flight.hold_shares(task_id, (slot,))
        return reservation

    async def _authorize_and_record(
        self,
        caller: Caller,
        request: AgentRequest,
        target: Registration,
        ruling_request: RulingRequest,
        *,
        previous: TaskRow | None,
        row: TaskRow,
        reservation: Reservation | None,
        deadline: float,
    ) -> PreparedTurn | TurnState:
        """Rules on the call and records it with its task in one commit, before anything is sent. A call that needs approval is paused."""
        # Authorize
        resends_after_consent = request.logged_message is not None and not request.continues_decision_id
        if previous and resends_after_consent:
            ruling_request = await self._pausing.with_earlier_approval(caller, ruling_request, target, previous)
        ruling = await self._authorizer.rule_or_refuse(caller, ruling_request)  # raises CallRefused, recorded
        # Prepare: a failure here records nothing, because nothing was sent
        check_input_contract(request, target, previous)
        if request.webhook is not None:
            await request.webhook.check_name()
        message = msgspec.structs.replace(request.logged_message or request.message, context_id=row.context_id, task_id=row.id)
        if isinstance(ruling, Question):
            paused = PausedTask(row, previous, message, target, approval_message_of(request), request_write(request, row, previous))
            return await self._pausing.pause(caller, paused, ruling_request, ruling)
        row, grant_write = with_grant(row, ruling), None
        if not row.grant_id and AUTH_OPTION in target.upstream:  # a person's own tool call has no grant row; consent needs one to resume
            row, grant_write = self._pausing.with_consent_grant(caller, row)
        opened = (
            self._turns.transitions.resumed_events(previous, row, message)
            if previous
            else TurnState(*self._stores.tasks.opening_events(row, message))
        )
        authorized = AuthorizedRequest(ruling, target, row, previous)
        turn, adapter = await prepare_turn(self._stores, self._upstreams.adapters, request, authorized, self._find_facts)
        # Record
        deadline = min(self._in_flight.deadline_of(row.parent_id), deadline)
        with self._telemetry.prepared_turn(request.trace_context, target, row) as (trace_context, span):
            call = self._call_builder.build_call(ruling, target, trace_context, row.id, deadline)
            live_events = self._stores.tasks.live_events(row) if request.is_watched else None
            extra_write = combine_writes(request_write(request, opened.row, previous), grant_write)
            ready = PreparedTurn(opened, turn, call, adapter, caller.delegation.task_id, live_events, span=span)
            given_up = partial(self._turn_runner.run_unattended, ready)
            await self._authorizer.record_task_opening(call, opened, previous, extra_write, reservation=reservation, on_abandoned=given_up)
        return ready

    async def _find_continued_task(self, caller: Caller, request: AgentRequest) -> TaskRow:
        """Returns the task that the message names, and continues (A2A 1.0 s3.4). Raises UnknownTask, TaskNotWaiting and BadMessage."""
        message = request.message
        try:
            row = await self._reader.find_row(caller, request.agent, message.task_id)
        except UnknownTask:
            self.callees.find_visible(caller, request.agent)  # an agent that the caller may not know of is an unknown name
            raise
        check_answerable(row, message)
        await self._pausing.check_answerable(row, message)
        return row

    async def _find_repeated(self, caller: Caller, request: AgentRequest) -> TurnState | None:
        key = request.idempotency_key
        return (
            None
            if key is None
            else await self._reader.find_repeated(caller, request.agent, key, request.message, wait_for_end=not request.is_watched)
        )

    async def cancel(self, caller: Caller, agent: str, task_id: str, trace_context: TraceContext) -> CanceledTask:
        """Cancels a task of the caller and the tasks that it caused. Raises UnknownTask, and what Cancellation.cancel raises."""
        return await self.cancellation.cancel(caller, await self._reader.find_row(caller, agent, task_id), trace_context)


def check_answerable(row: TaskRow, message: Message) -> None:
    """Raises BadMessage or TaskNotWaiting if the message cannot continue the task that it names."""
    if message.context_id and message.context_id != row.context_id:
        raise BadMessage("message.contextId", "is not the context of the task named in message.taskId")
    if row.has_ended or row.state in RUNNING_STATES:
        raise TaskNotWaiting


def _check_answer_accepted(turned: TurnState) -> TurnState:
    """Raises BadPromptAnswer if the agent refused the answer in the message."""
    if turned.is_answer_refused:
        raise BadPromptAnswer(
            "message.parts", "was refused by the agent as an answer; the task still waits, and its status message says for what"
        )
    return turned
