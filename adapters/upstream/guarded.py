"""Enforces the contract on any adapter: one ending, no later than the deadline; a broken response is a failure."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final, cast

import structlog
from msgspec.structs import replace

from adapters.contract import (
    AGENT_LATE,
    DEADLINE_MARGIN_SECONDS,
    ENDINGS,
    Adapter,
    AnswerRefused,
    BatchingAdapter,
    Call,
    Canceled,
    CannotReattach,
    ConsentNeeded,
    Event,
    Failed,
    Failure,
    InvalidAnswer,
    Progress,
    Reattachable,
    RefLearned,
    RunningTurn,
    Stoppable,
    Turn,
    Unreachable,
    UpstreamFault,
    VendorRef,
    Watcher,
)
from adapters.task import Task
from adapters.upstream.breaker import CircuitOpen
from adapters.upstream.call_redaction import CallRedactor
from adapters.upstream.egress import EgressRefused
from adapters.upstream.pending_consent import is_pending
from adapters.upstream.resilience import Resilience

LATE_TEXT = "The agent did not answer in time"
QUIET = "The agent was silent for too long"
STOP_SECONDS: Final = 2.0  # for the request that stops an agent's turn
NO_ENDING_TEXT = "The agent's answer was cut off"
QUOTING_EVENTS: Final = frozenset({Failed, AnswerRefused, Canceled, Progress})  # their texts may quote credentials of the call
log = structlog.get_logger()


class GuardedAdapter:
    """An Adapter around another. Ends after the first ending, and closes the inner adapter.

    Retries requests that were certainly not sent or not accepted, possibly at another endpoint, as `resilience` allows.
    """

    def __init__(self, inner: Adapter, resilience: Resilience | None = None) -> None:
        self._inner = inner
        self._resilience = resilience or Resilience()

    def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """Yields the inner adapter's events up to its ending, or a Failed in its place."""
        return events_of(self, turn, call)

    def begin_turn(self, turn: Turn, call: Call) -> RunningTurn:
        """Runs the turn with the events of `run`. No batch is empty."""
        return _GuardedTurn(self._inner, self._resilience, turn, call)

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        """Continues a turn at the endpoint that has the task, with a failure in place of an error. Raises CannotReattach."""
        inner = self._inner
        if not isinstance(inner, Reattachable):
            raise CannotReattach
        bound = _TurnDeadline(call)
        ref = turn.ref or VendorRef()
        sent = self._resilience.call_at_task_endpoint(ref, replace(call, on_activity=bound.note_activity))
        try:
            async with aclosing(YieldedTurn(inner.reattach(turn, known, sent))) as running:
                while True:
                    (event,) = await _next_events_or_failure(running, bound, call.headers)
                    ref = event.ref if isinstance(event, RefLearned) else ref
                    await _stop_if_late(inner, ref, sent, bound)
                    yield event
                    if type(event) in ENDINGS:
                        return
        finally:
            bound.cancel()

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        """Cancels with the inner adapter. Raises UpstreamFault for an agent that is unreachable or late, whose task may be running."""
        try:
            async with asyncio.timeout_at(call.deadline):
                return await self._inner.cancel(ref, self._resilience.call_at_task_endpoint(ref, call))
        except EgressRefused as refused:
            raise UpstreamFault(refused.public) from None
        except UpstreamFault as fault:
            CallRedactor(call.headers).redact_fault(fault)
            raise
        except TimeoutError:
            raise UpstreamFault(LATE_TEXT, failure=Failure.LATE) from None


class GuardedWatcher(GuardedAdapter):
    """A GuardedAdapter around an adapter that is a Watcher."""

    async def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        """Watches with the inner adapter. Yields nothing for a timeout or an unreachable agent, as long as nothing changed."""
        inner, call = cast("Watcher", self._inner), self._resilience.call_at_task_endpoint(ref, call)
        moved, bound = False, _TurnDeadline(replace(call, idle=math.inf))
        try:
            async with aclosing(YieldedTurn(inner.watch(ref, call))) as running:
                while True:
                    (event,) = await _next_events_or_failure(running, bound, call.headers)
                    if isinstance(event, Failed) and event.kind and not moved:
                        return
                    moved = True
                    ref = event.ref if isinstance(event, RefLearned) else ref
                    await _stop_if_late(self._inner, ref, call, bound)
                    yield event
                    if type(event) in ENDINGS:
                        return
        finally:
            bound.cancel()


class _GuardedTurn:
    """A turn of a GuardedAdapter: attempts until the agent begins to answer, then what it answers."""

    __slots__ = ("_adapter", "_attempts", "_begun", "_call", "_deadline", "_has_ended", "_ref", "_running", "_sleep", "_turn")

    def __init__(self, adapter: Adapter, resilience: Resilience, turn: Turn, call: Call) -> None:
        self._adapter = adapter
        self._turn = turn
        self._call = call
        self._sleep = resilience.sleep
        self._deadline = _TurnDeadline(call)
        self._attempts = resilience.attempts_for(turn.ref, replace(call, on_activity=self._deadline.note_activity))
        self._running: RunningTurn | None = None  # the last attempt
        self._ref = _continued_task(turn)
        self._begun = False  # whether the agent has sent more than ids
        self._has_ended = False

    async def next_events(self) -> Sequence[Event] | None:
        if self._has_ended:
            return None
        events = await (self._first_events() if self._running is None else self._later_events(self._running))
        learned = [event.ref for event in events if type(event) is RefLearned]
        if learned:
            self._ref = learned[-1]
            events = self._attempts.with_endpoint(events)
        self._begun = self._begun or len(learned) < len(events)
        self._has_ended = type(events[-1]) in ENDINGS
        return events

    async def aclose(self) -> None:
        self._attempts.end()
        self._deadline.cancel()
        if self._running is not None:
            await self._running.aclose()

    async def _first_events(self) -> Sequence[Event]:
        """The first events of the first attempt that the agent answers, or that may not be repeated."""
        while True:
            try:
                self._attempts.begin()
            except CircuitOpen as left:
                return [_answer_refusal(self._turn, left) or replace(_failure_of(left), retryable=True)]
            self._running = begin_turn(self._adapter, self._turn, self._attempts.call)
            events = await _next_events_or_failure(self._running, self._deadline, self._call.headers)
            fault = self._deadline.last_fault
            if fault is None:
                self._attempts.record_answer()
                return events
            delay = self._attempts.retry_delay_after(fault, self._deadline.seconds_left)
            if delay is None:
                await _stop_if_late(self._adapter, self._ref, self._attempts.call, self._deadline)
                return [_answer_refusal(self._turn, fault) or events[0]]
            await self._running.aclose()
            self._call.on_retry(fault.public)
            await self._sleep(delay)

    async def _later_events(self, running: RunningTurn) -> Sequence[Event]:
        events = await _next_events_or_failure(running, self._deadline, self._call.headers)
        fault = self._deadline.last_fault
        if fault is None:
            return events
        self._attempts.record_broken_answer(fault)
        await _stop_if_late(self._adapter, self._ref, self._attempts.call, self._deadline)
        return [_after_effect(events[0]) if self._begun else _answer_refusal(self._turn, fault) or events[0]]


def guard(inner: Adapter, resilience: Resilience | None = None) -> GuardedAdapter:
    """The guarded adapter; a Watcher only where the inner one is, so that only watchable tasks are polled."""
    return GuardedWatcher(inner, resilience) if isinstance(inner, Watcher) else GuardedAdapter(inner, resilience)


class YieldedTurn:
    """The turn of an adapter that yields its events: a batch for each."""

    __slots__ = ("_events",)

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self._events = events

    async def next_events(self) -> Sequence[Event] | None:
        async for event in self._events:
            return (event,)
        return None

    async def aclose(self) -> None:
        await cast("AsyncGenerator[Event, None]", self._events).aclose()


def begin_turn(adapter: Adapter, turn: Turn, call: Call) -> RunningTurn:
    """Runs a turn of any adapter."""
    begin: Callable[[Turn, Call], RunningTurn] | None = getattr(adapter, "begin_turn", None)  # asking isinstance takes 20 times as long
    return YieldedTurn(adapter.run(turn, call)) if begin is None else begin(turn, call)


async def events_of(adapter: BatchingAdapter, turn: Turn, call: Call) -> AsyncIterator[Event]:
    """Runs a turn, and yields its events one by one."""
    async with aclosing(adapter.begin_turn(turn, call)) as running:
        while (events := await running.next_events()) is not None:
            for event in events:
                yield event


async def _stop_if_late(adapter: Adapter, ref: VendorRef | None, call: Call, turn_deadline: "_TurnDeadline") -> None:
    """Stops a turn at the agent after its deadline. Otherwise the agent works for nothing, and is busy at the conversation's next turn.

    Takes at most STOP_SECONDS. The turn has failed, whether the agent accepts the request or not.
    """
    if ref is None or not turn_deadline.is_late or not isinstance(adapter, Stoppable):
        return
    until = asyncio.get_running_loop().time() + STOP_SECONDS
    try:
        async with asyncio.timeout_at(until):
            confirmed = await adapter.stop(ref, replace(call, deadline=until))
    except (UpstreamFault, EgressRefused, ConsentNeeded, TimeoutError) as error:
        log.warning("late_turn_not_stopped", agent=call.target.name, error=type(error).__name__)
    else:
        log.info("late_turn_stopped", agent=call.target.name, confirmed=confirmed)


def _continued_task(turn: Turn) -> VendorRef | None:
    """The agent's ids of the task that a message continues; None for a new task."""
    ref = turn.ref
    return ref if ref is not None and ref.task_id and not is_pending(ref) else None


def _answer_refusal(turn: Turn, fault: UpstreamFault) -> AnswerRefused | None:
    """The ending of a turn whose answers the agent certainly did not accept; None if it may have, or for a new task."""
    if _continued_task(turn) is None or not fault.had_no_effect:
        return None
    return AnswerRefused(fault.public, fault.detail, "" if fault.is_callers_mistake else fault.kind, fault.retryable)


class _TurnDeadline:
    """The deadline of a turn, and the limit of the agent's silence: one timer for a turn, instead of one for each event."""

    def __init__(self, call: Call) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = call.deadline
        self._idle = call.idle
        self._last_activity = self._loop.time()
        self.last_fault: UpstreamFault | None = None  # the fault behind the last event
        self._waiting_task: asyncio.Task[object] | None = None
        self._timer = self._loop.call_at(self._end_time, self._expire)
        self._is_expired = False

    def note_activity(self) -> None:
        """Notes a sign of life."""
        self._last_activity = self._loop.time()

    async def next_events(self, running: RunningTurn) -> Sequence[Event] | None:
        """The next batch. Raises TimeoutError, and what the adapter raises."""
        self.note_activity()
        task = self._waiting_task = asyncio.current_task()
        cancel_requests = task.cancelling() if task else 0
        try:
            if self._is_expired:
                raise TimeoutError
            return await running.next_events()
        except asyncio.CancelledError:
            if not self._is_expired or (task and task.uncancel() > cancel_requests):
                raise
            raise TimeoutError from None
        finally:
            self._waiting_task = None

    @property
    def seconds_left(self) -> float:
        """The seconds until the deadline."""
        return self._deadline - self._loop.time()

    @property
    def is_late(self) -> bool:
        """Whether the turn ended because of time, so that the agent may still be working on it. It never got an unsent message."""
        fault = self.last_fault
        if fault is None or fault.is_unsent or fault.had_no_effect:
            return False
        return self._is_expired or fault.failure is Failure.LATE or self.seconds_left <= DEADLINE_MARGIN_SECONDS

    @property
    def problem(self) -> str:
        """The reason why a turn was ended here."""
        return LATE_TEXT if self.seconds_left <= DEADLINE_MARGIN_SECONDS else QUIET

    def cancel(self) -> None:
        self._timer.cancel()

    @property
    def _end_time(self) -> float:
        """When the timer expires, on the event loop's clock. Silence counts only while the adapter waits for the agent."""
        return min(self._deadline, (self._last_activity if self._waiting_task is not None else self._loop.time()) + self._idle)

    def _expire(self) -> None:
        if (due := self._end_time) > self._loop.time():
            self._timer = self._loop.call_at(due, self._expire)
            return
        self._is_expired = True
        if self._waiting_task is not None:
            self._waiting_task.cancel()


async def _next_events_or_failure(running: RunningTurn, turn_deadline: _TurnDeadline, headers: Mapping[str, str]) -> Sequence[Event]:
    """What the adapter yields next, up to an ending, or a Failed in place of what it raises. Texts lose the credentials of `headers`."""
    turn_deadline.last_fault = None
    try:
        while (events := await turn_deadline.next_events(running)) is not None:
            if events:
                return _check_events(events, headers)
        turn_deadline.last_fault = InvalidAnswer(NO_ENDING_TEXT, "the adapter yielded no ending")
    except UpstreamFault as broken:
        CallRedactor(headers).redact_fault(broken)
        turn_deadline.last_fault = broken
    except EgressRefused as refused:
        turn_deadline.last_fault = UpstreamFault(refused.public)
        return (Failed(refused.public, kind=UpstreamFault.kind, had_no_effect=True),)
    except TimeoutError:
        turn_deadline.last_fault = Unreachable(turn_deadline.problem)
        return (Failed(turn_deadline.problem, kind=AGENT_LATE),)
    return (_failure_of(turn_deadline.last_fault),)


def _check_events(events: Sequence[Event], headers: Mapping[str, str]) -> Sequence[Event]:
    """The events up to the first ending. Error texts may quote credentials of the call, which are removed."""
    checked = list[Event]()
    for event in events:
        kind = type(event)
        checked.append(_without_credentials(event, headers) if kind in QUOTING_EVENTS else event)
        if kind in ENDINGS:
            break
    return checked


def _without_credentials(event: Event, headers: Mapping[str, str]) -> Event:
    return event if isinstance(event, Progress) and not event.detail else CallRedactor(headers).redact_event(event)


def _after_effect(event: Event) -> Event:
    """The failure of a turn whose agent has begun to work, whatever the fault says."""
    return replace(event, had_no_effect=False) if isinstance(event, Failed) and event.had_no_effect else event


def _failure_of(fault: UpstreamFault) -> Failed:
    return Failed(
        fault.public,
        detail=fault.detail,
        kind=fault.kind,
        retryable=fault.retryable,
        retry_after=fault.retry_after,
        had_no_effect=fault.had_no_effect or fault.retryable,
    )


_: type[Adapter] = GuardedAdapter
_batching: type[BatchingAdapter] = GuardedAdapter
