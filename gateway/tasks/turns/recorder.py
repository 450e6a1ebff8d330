"""Records one turn of an agent: its events become entries of the task's log, and exactly one ending ends the turn."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import partial

import msgspec
import structlog
from msgspec.structs import replace

from adapters.contract import (
    ENDINGS,
    Adapter,
    AnswerRefused,
    ArtifactPiece,
    Ask,
    Call,
    Canceled,
    Event,
    Failed,
    InvalidAnswer,
    Progress,
    RefLearned,
    Replied,
    Turn,
    TurnPostponed,
    UpstreamFault,
)
from adapters.task import INTERRUPTED, TaskState, TaskStatus
from adapters.upstream.guarded import begin_turn
from gateway.storage.database import Batch, ReadFailed, WriteFailed
from gateway.tasks.contracts.prompts import with_prompts
from gateway.tasks.events.entries import TaskEvent, TaskRecord, TaskRow
from gateway.tasks.log import TaskMoved
from gateway.tasks.turns.costs import NO_COSTS, TurnCosts, WriteCost
from gateway.tasks.turns.deferred_endings import STOP_ENDING, TURN_ENDING, DeferredEndings
from gateway.tasks.turns.effects import EndEffect, and_then_end, keep_effect
from gateway.tasks.turns.journal import Retry, TurnJournal, TurnState
from gateway.tasks.turns.progress_writer import ProgressWriter
from gateway.tasks.turns.stores import TaskStores
from gateway.tasks.turns.superseded import SupersededCosts
from gateway.tasks.turns.transitions import TaskTransitions, join_events
from registry.cards.card import Family

__all__ = ["EndingNotWritten", "TurnRecorder", "TurnState"]
INVALID_ANSWER = InvalidAnswer.kind
GATEWAY_FAILURE = "GATEWAY"  # failure kind: the gateway failed, not the agent
TURN_TOO_LONG = "TURN_TOO_LONG"  # failure kind: the turn exceeds limits.turn_events or limits.turn_bytes
TURN_TOO_LONG_TEXT = "The turn is longer than this gateway stores (limits.turn_events, limits.turn_bytes). All earlier output is stored."
REF_WRITE_SECONDS = 0.05  # of silence after the agent's ids arrived, before they are written alone
log = structlog.get_logger()
_decode_status = msgspec.json.Decoder(TaskStatus).decode
OUTCOME_BY_STATE = {
    TaskState.COMPLETED: "ok",
    TaskState.INPUT_REQUIRED: "asks",
    TaskState.AUTH_REQUIRED: "asks",
    TaskState.CANCELED: "canceled",
    TaskState.REJECTED: "rejected",
    TaskState.WORKING: "suspended",
}


class EndingNotWritten(WriteFailed):
    """The agent's turn is over, but the database has not accepted its ending; the gateway retries. `task_id` names the task."""

    def __init__(self, task_id: str) -> None:
        super().__init__(f"The agent's answer could not be stored yet; ask for the task {task_id} later.")
        self.task_id = task_id


Pause = Callable[[float], Awaitable[None]]  # waits for seconds


class TurnRecorder:
    """Runs turns. Events of a streamed turn are written as they come, those of other turns with the ending.

    A turn does not wait for commits: events that come during one commit are written by the next. While the database is away, the turn
    continues, and its events are written (and shown) with a later commit.
    """

    def __init__(
        self, stores: TaskStores, pause: Pause = asyncio.sleep, costs: TurnCosts = NO_COSTS, end_effect: EndEffect = keep_effect
    ) -> None:
        self._stores = stores
        self._costs = costs
        self._superseded_costs = SupersededCosts(stores)
        self._end_effect = end_effect
        self.transitions = TaskTransitions(stores.tasks, stores.new_id, stores.now)
        self._deferred_endings = DeferredEndings(pause)

    async def run_and_record(self, adapter: Adapter, turn: Turn, call: Call, opening: TurnState) -> TurnState:
        """Runs the agent until it ends its turn, and returns the task. Raises EndingNotWritten, also for a turn that is postponed."""
        started = self._stores.now()
        journal = TurnJournal(opening, self._stores.turn_limits)
        call = replace(call, on_retry=lambda problem: journal.retries.append((self._stores.now(), problem)))
        writer: ProgressWriter[TurnState] | None = None  # constructed for the first event that is written at once
        ref_timer = _VendorRefTimer(self._stores)
        try:
            async with aclosing(begin_turn(adapter, turn, call)) as running:
                while (events := await running.next_events()) is not None:
                    ending = self._add_events(journal, events, ref_timer)
                    if ending is not None:
                        event = ending
                        break
                    if any(_is_written_at_once(turn, event) for event in events):
                        writer = writer or ProgressWriter(partial(self._write_pending, journal), lambda: journal.pause_seconds)
                        writer.write()
                else:
                    event = self._add_failure(journal, Failed("The agent ended its turn without an outcome.", kind=INVALID_ANSWER))
            if isinstance(event, AnswerRefused):
                await _restore_waiting_state(self._stores, self.transitions, journal, opening.row, event)
        except asyncio.CancelledError:
            if writer is None or not writer.was_superseded():
                raise
            event = Canceled()
        except TurnPostponed as postponed:
            return await _leave_to_another_turn(opening.row, writer, ref_timer, postponed)
        except UpstreamFault as fault:
            failed = Failed(fault.public, detail=fault.detail, kind=fault.kind, had_no_effect=fault.had_no_effect)
            event = self._add_failure(journal, failed)
        except Exception:  # the root of a turn: the task must end after any error
            log.exception("turn_broke", agent=opening.row.agent, task_id=opening.row.id)
            event = self._add_failure(journal, Failed("The gateway could not process the agent's answer.", kind=GATEWAY_FAILURE))
        ref_timer.cancel()
        superseding = await writer.flush() if writer is not None else None
        write_cost = await _price(self._costs, call, event)
        ends_effect = call.grant.effect_mark is not None and journal.row.has_ended
        write_cost = and_then_end(self._end_effect, call.grant, journal.row, event, write_cost) if ends_effect else write_cost
        turn_state = await self._write_ending(journal, event, started, write_cost, superseding)
        return replace(turn_state, is_answer_refused=True) if isinstance(event, AnswerRefused) and not event.kind else turn_state

    async def record_abandoned_turn(self, call: Call, row: TaskRow) -> None:
        """Stores what a turn cost that the gateway has abandoned, because its task has ended otherwise. `row`: as the turn began."""
        self._superseded_costs.post(row, await _price(self._costs, call, Canceled()))

    async def end_task(self, turn_state: TurnState, event: Event) -> TurnState:
        """Ends a task by the gateway, even while its turn adds events. A task that has ended stays as it is."""
        while not turn_state.row.has_ended:
            new = self.transitions.apply_event(turn_state.row, event)
            superseding = await self._append_events(turn_state.row, new.row, new.events, self._stores.now())
            turn_state = join_events(turn_state, new) if superseding is None else superseding
            if superseding is None:
                break
        return turn_state

    async def stop_task(self, turn_state: TurnState, event: Event) -> TurnState:
        """Ends a task like `end_task`. If the database fails, retries in the background and raises EndingNotWritten."""
        try:
            return await self.end_task(turn_state, event)
        except (WriteFailed, ReadFailed) as error:
            self._deferred_endings.retry_until_written(turn_state.row.id, STOP_ENDING, partial(self.end_task, turn_state, event))
            raise EndingNotWritten(turn_state.row.id) from error

    async def end_lost_task(self, record: TaskRecord, failure: Failed) -> bool:
        """Ends a task without a working process.

        Returns False if the task has moved since it was read. Raises WriteFailed and ReadFailed.
        """
        new = self.transitions.apply_event(record.row, failure)
        return await self._append_events(record.row, new.row, new.events, self._stores.now()) is None

    def has_deferred_ending(self, task_id: str) -> bool:
        """Returns whether an ending of the task is still to be written."""
        return task_id in self._deferred_endings

    async def close(self) -> None:
        """Gives up on endings that are still to be written; the next process ends these tasks."""
        await self._deferred_endings.close()

    async def _write_pending(self, journal: TurnJournal) -> TurnState | None:
        """Writes the pending events.

        Returns the superseding state if another request or process has moved the task, else None.
        While the database is away, the events stay pending.
        """
        unwritten, row = journal.unwritten_events(), journal.progress_row()
        try:
            superseding = await self._append_events(journal.written_row, row, unwritten, None)
        except (WriteFailed, ReadFailed) as error:
            log.warning("events_postponed", task_id=row.id, error=type(error).__name__)
            return None
        if superseding is None:
            journal.mark_written(row, len(unwritten))
        return superseding

    async def _write_ending(
        self, journal: TurnJournal, event: Event, started: int, write_cost: WriteCost | None, superseding: TurnState | None
    ) -> TurnState:
        """Writes the ending and returns the task. If the database fails, retries in the background and raises EndingNotWritten."""
        if superseding is not None:
            return self._superseded_costs.post_of(superseding, write_cost)
        journal.row = row = _without_answered_prompts(journal.row, event)
        unwritten = journal.unwritten_events()
        _log_event(row, event)
        written, retries = journal.written_row, journal.retries

        def write(row: TaskRow) -> Awaitable[TurnState | None]:
            return self._append_events(written, row, unwritten, started, write_cost=write_cost, retries=retries)

        try:
            superseding = await write(row)
        except (WriteFailed, ReadFailed) as error:  # a late ending has the time of its writing, so that lists find it
            self._deferred_endings.retry_until_written(row.id, TURN_ENDING, lambda: write(replace(row, updated=self._stores.now())))
            raise EndingNotWritten(row.id) from error
        return journal.to_turn_state() if superseding is None else superseding

    async def _append_events(
        self,
        previous: TaskRow,
        row: TaskRow,
        events: Sequence[TaskEvent],
        started: int | None,
        *,
        write_cost: WriteCost | None = None,
        retries: Sequence[Retry] = (),
    ) -> TurnState | None:
        """Appends events to the task as it was at `previous`; with `started`, writes the outcome and the end of the grant too.

        `write_cost` adds the cost of the turn to the same commit. `retries` are part of the outcome.

        Returns None, or the superseding state if another request or process has moved the task. Raises WriteFailed and ReadFailed.
        """
        stores = self._stores

        def work(batch: Batch) -> None:
            stores.tasks.advance(batch, previous, row, events)
            if started is not None:
                stores.audit.record(batch, _outcome_record(row, stores.now() - started, retries))
                if write_cost is not None:
                    write_cost(batch, row.id, row.last_seq)
                if not row.has_ended:  # the task waits, and calls that its agent makes now have their own time
                    stores.grants.set_deadline(batch, row.tenant, row.grant_id, row.id)

        try:
            await stores.database.write(work)
        except TaskMoved:
            record = await stores.tasks.read_record(row.tenant, row.owner, row.id)
            count = _count_written(events, record) if record.row.runner in (previous.runner, row.runner) else None
            if count is None:
                stores.tasks.publish(record.row, record.events)
                return self._superseded_costs.post_of(TurnState(record.row, record.events), write_cost)
            if count < len(events):
                return await self._append_events(record.row, row, events[count:], started, write_cost=write_cost, retries=retries)
        if started is not None or row.has_ended:
            stores.grants.invalidate(row.tenant, row.grant_id)
        stores.tasks.publish(row, events)
        return None

    def _add_events(self, journal: TurnJournal, events: Sequence[Event], ref_timer: "_VendorRefTimer") -> Event | None:
        """Adds events that came together. Returns the one that ends the turn, if any; a refused answer is not added."""
        at = self._stores.now()
        for event in events:
            if isinstance(event, ArtifactPiece):
                journal.add_piece(event, at)
            elif isinstance(event, AnswerRefused):
                return event
            else:
                journal.add(self.transitions.apply_event(journal.row, event, at))
                if type(event) in ENDINGS:
                    return event
                ref_timer.note_event(event, journal.row)
                _log_event(journal.row, event)
            if journal.is_full:
                return self._add_failure(journal, Failed(TURN_TOO_LONG_TEXT, kind=TURN_TOO_LONG))
        ref_timer.start()
        return None

    def _add_failure(self, journal: TurnJournal, event: Failed) -> Failed:
        """Adds the failure that ends a turn whose agent sent no ending."""
        journal.add(self.transitions.apply_event(journal.row, event))
        return event


async def _restore_waiting_state(
    stores: TaskStores, transitions: TaskTransitions, journal: TurnJournal, previous: TaskRow, refusal: AnswerRefused
) -> None:
    """Adds the event that the task waits as before: the agent took no answer, so its former ids and prompts apply."""
    try:
        record = await stores.tasks.read_record(previous.tenant, previous.owner, previous.id)
    except ReadFailed:
        record = None
    statuses = (_decode_status(event.body) for event in reversed(record.events if record else ()) if event.kind == "status")
    waiting_status = next((status for status in statuses if status.state in INTERRUPTED), None)
    journal.row = replace(journal.row, vendor_ref=previous.vendor_ref, awaited_connection_id=previous.awaited_connection_id)
    journal.add(transitions.waiting_state(journal.row, waiting_status, refusal))


async def _leave_to_another_turn(
    row: TaskRow, writer: ProgressWriter[TurnState] | None, ref_timer: "_VendorRefTimer", postponed: TurnPostponed
) -> TurnState:
    """Ends a turn without an ending. Returns the state of a task that another request or process has moved. Raises EndingNotWritten."""
    ref_timer.cancel()
    if writer is not None and (superseding := await writer.flush()) is not None:
        return superseding
    raise EndingNotWritten(row.id) from postponed


def _without_answered_prompts(row: TaskRow, ending: Event) -> TaskRow:
    """Returns the row without the prompts that the turn answered, if the agent itself ended the turn.

    After any other failure the agent may not have read the answers, so the prompts stay.
    """
    if not row.has_open_prompts or isinstance(ending, Ask | AnswerRefused) or (isinstance(ending, Failed) and ending.kind):
        return row
    return replace(row, vendor_ref=with_prompts(row.vendor_ref, ()))


def _post_vendor_ref(stores: TaskStores, row: TaskRow) -> None:
    """Writes the agent's ids of a task, so that the agent can be told to stop."""
    stores.database.post(lambda batch: stores.tasks.update_vendor_ref(batch, row))


class _VendorRefTimer:
    """Writes the agent's ids after a short silence, unless an event that is written anyway follows."""

    def __init__(self, stores: TaskStores) -> None:
        self._stores = stores
        self._row: TaskRow | None = None  # with ids that are not written yet
        self._timer: asyncio.TimerHandle | None = None

    def note_event(self, event: Event, row: TaskRow) -> None:
        if isinstance(event, RefLearned):
            self._row = row
            if event.ref.task_id:
                self._stores.tasks.note_agent_task(row)

    def start(self) -> None:
        """Begins to wait, after events that do not end the turn."""
        if self._row is not None:
            self.cancel()
            self._timer = asyncio.get_running_loop().call_later(REF_WRITE_SECONDS, _post_vendor_ref, self._stores, self._row)
            self._row = None

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


def _log_event(row: TaskRow, event: Event) -> None:
    """Logs for operators what callers do not see."""
    if isinstance(event, Failed):
        log.warning("agent_failed", agent=row.agent, task_id=row.id, problem=event.reason, detail=event.detail)
    elif isinstance(event, AnswerRefused):
        log.info("answer_refused", agent=row.agent, task_id=row.id, problem=event.reason, detail=event.detail)
    elif isinstance(event, Progress) and event.detail:
        log.warning("stack_trace_withheld", agent=row.agent, task_id=row.id, detail=event.detail)


def _may_cost(call: Call, ending: Event) -> bool:
    """Returns whether the cost of a turn may be known, or is part of a run's. Most turns of agents without a price end here."""
    metadata = ending.message.metadata if isinstance(ending, Replied) else getattr(ending, "metadata", None)
    path = call.grant.delegation.path
    callers = path[:-1] if call.target.family is Family.AGENT else path
    return bool(metadata or call.target.prices or callers)


def _is_written_at_once(turn: Turn, event: Event) -> bool:
    """Returns whether the event is written when it comes, not only with the ending."""
    return isinstance(event, Progress) or (turn.stream and isinstance(event, ArtifactPiece))


def _count_written(events: Sequence[TaskEvent], record: TaskRecord) -> int | None:
    """Returns how many of these events the database has, after a commit that seemed to fail; None if the task was moved otherwise."""
    written = tuple(event for event in events if event.seq <= record.row.last_seq)
    return len(written) if written == tuple(event for event in record.events if event.seq >= events[0].seq) else None


def outcome_of(state: TaskState) -> str:
    """Returns the outcome, in one word, of a turn that left its task in `state`."""
    return OUTCOME_BY_STATE.get(state, "failed")


def _outcome_record(row: TaskRow, duration_us: int, retries: Sequence[Retry]) -> dict[str, object]:
    return {
        "kind": "outcome",
        "tenant": row.tenant,
        "decision_id": row.decision_id,
        "txn": row.txn,
        "task_id": row.id,
        "outcome": outcome_of(row.state),
        "state": row.state.value,
        "duration_us": duration_us,
        **({"retries": [{"at": at, "problem": problem} for at, problem in retries]} if retries else {}),
    }


async def _price(costs: TurnCosts, call: Call, ending: Event) -> WriteCost | None:
    """Returns what stores the cost of a turn, or None if there is nothing to store."""
    pricing = costs.pricing_of(call, ending) if costs.has_budget or _may_cost(call, ending) else None
    return None if pricing is None else await pricing
