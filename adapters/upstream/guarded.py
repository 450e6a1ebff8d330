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
ERROR_EVENTS: Final = (Failed, AnswerRefused, Canceled)  # their texts may quote credentials of the call
RunInBatches = Callable[[Turn, Call], AsyncGenerator[Sequence[Event], None]]
log = structlog.get_logger()


class GuardedAdapter:
    """An Adapter around another. Ends after the first ending, and closes the inner adapter.

    Retries requests that were certainly not sent or not accepted, possibly at another endpoint, as `resilience` allows.
    """

    def __init__(self, inner: Adapter, resilience: Resilience | None = None) -> None:
        self._inner = inner
        self._resilience = resilience or Resilience()

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """Yields the inner adapter's events up to its ending, or a Failed in its place."""
        async with aclosing(self.run_in_batches(turn, call)) as batches:
            async for events in batches:
                for event in events:
                    yield event

    async def run_in_batches(self, turn: Turn, call: Call) -> AsyncGenerator[Sequence[Event], None]:
        """Yields the events of `run`, those that arrived together in one batch. None is empty."""
        bound = _TurnDeadline(call)
        attempts = self._resilience.attempts_for(turn.ref, replace(call, on_activity=bound.note_activity))
        try:
            while True:
                attempts.begin()
                ref = _continued_task(turn)
                async with aclosing(batches_of(self._inner, turn, attempts.call)) as batches:
                    events = await _next_events_or_failure(batches, bound, call.headers)
                    delay = None
                    if bound.last_fault is None:
                        attempts.record_answer()
                    elif (delay := attempts.retry_delay_after(bound.last_fault, bound.seconds_left)) is None:
                        await self._stop_if_late(bound, ref, attempts.call)
                        yield [_answer_refusal(turn, bound.last_fault) or events[0]]
                        return
                    begun = False
                    while delay is None:
                        if bound.last_fault is not None:
                            events = [_after_effect(events[0]) if begun else _answer_refusal(turn, bound.last_fault) or events[0]]
                            await self._stop_if_late(bound, ref, attempts.call)
                        learned = [event.ref for event in events if isinstance(event, RefLearned)]
                        ref = learned[-1] if learned else ref
                        begun = begun or len(learned) < len(events)
                        if bound.last_fault is not None:
                            attempts.record_broken_answer(bound.last_fault)
                        yield attempts.with_endpoint(events) if learned else events
                        if type(events[-1]) in ENDINGS:
                            return
                        events = await _next_events_or_failure(batches, bound, call.headers)
                if bound.last_fault is not None:
                    call.on_retry(bound.last_fault.public)
                await self._resilience.sleep(delay)
        except CircuitOpen as left:
            yield [_answer_refusal(turn, left) or replace(_failure_of(left), retryable=True)]
        finally:
            attempts.end()
            bound.cancel()

    async def _stop_if_late(self, bound: "_TurnDeadline", ref: VendorRef | None, call: Call) -> None:
        """Stops a turn at the agent after its deadline. Otherwise the agent works for nothing, and is busy at the conversation's next turn.

        Takes at most STOP_SECONDS. The turn has failed, whether the agent accepts the request or not.
        """
        inner = self._inner
        if ref is None or not bound.is_late or not isinstance(inner, Stoppable):
            return
        until = asyncio.get_running_loop().time() + STOP_SECONDS
        try:
            async with asyncio.timeout_at(until):
                confirmed = await inner.stop(ref, replace(call, deadline=until))
        except (UpstreamFault, EgressRefused, ConsentNeeded, TimeoutError) as error:
            log.warning("late_turn_not_stopped", agent=call.target.name, error=type(error).__name__)
        else:
            log.info("late_turn_stopped", agent=call.target.name, confirmed=confirmed)

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        """Continues a turn at the endpoint that has the task, with a failure in place of an error. Raises CannotReattach."""
        inner = self._inner
        if not isinstance(inner, Reattachable):
            raise CannotReattach
        bound = _TurnDeadline(call)
        ref = turn.ref or VendorRef()
        sent = self._resilience.call_at_task_endpoint(ref, replace(call, on_activity=bound.note_activity))
        try:
            async with aclosing(_one_by_one(inner.reattach(turn, known, sent))) as batches:
                while True:
                    (event,) = await _next_events_or_failure(batches, bound, call.headers)
                    ref = event.ref if isinstance(event, RefLearned) else ref
                    await self._stop_if_late(bound, ref, sent)
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
            async with aclosing(_one_by_one(inner.watch(ref, call))) as batches:
                while True:
                    (event,) = await _next_events_or_failure(batches, bound, call.headers)
                    if isinstance(event, Failed) and event.kind and not moved:
                        return
                    moved = True
                    ref = event.ref if isinstance(event, RefLearned) else ref
                    await self._stop_if_late(bound, ref, call)
                    yield event
                    if type(event) in ENDINGS:
                        return
        finally:
            bound.cancel()


def guard(inner: Adapter, resilience: Resilience | None = None) -> GuardedAdapter:
    """The guarded adapter; a Watcher only where the inner one is, so that only watchable tasks are polled."""
    return GuardedWatcher(inner, resilience) if isinstance(inner, Watcher) else GuardedAdapter(inner, resilience)


def batches_of(adapter: Adapter, turn: Turn, call: Call) -> AsyncGenerator[Sequence[Event], None]:
    """The events of a turn of any adapter, those that arrived together in one batch. Some batches may be empty."""
    run_in_batches: RunInBatches | None = getattr(adapter, "run_in_batches", None)  # asking isinstance takes 20 times as long
    return _one_by_one(adapter.run(turn, call)) if run_in_batches is None else run_in_batches(turn, call)


async def _one_by_one(events: AsyncIterator[Event]) -> AsyncGenerator[Sequence[Event], None]:
    """Yields each event in a batch of its own."""
    async with aclosing(cast("AsyncGenerator[Event, None]", events)) as arriving:
        async for event in arriving:
            yield (event,)


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

    async def next_events(self, batches: AsyncIterator[Sequence[Event]]) -> Sequence[Event]:
        """The next batch. Raises TimeoutError, and what the adapter raises."""
        self.note_activity()
        task = self._waiting_task = asyncio.current_task()
        cancel_requests = task.cancelling() if task else 0
        try:
            if self._is_expired:
                raise TimeoutError
            events = await anext(batches)
        except asyncio.CancelledError:
            if not self._is_expired or (task and task.uncancel() > cancel_requests):
                raise
            raise TimeoutError from None
        finally:
            self._waiting_task = None
        self.note_activity()
        return events

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


async def _next_events_or_failure(
    batches: AsyncIterator[Sequence[Event]], turn_deadline: _TurnDeadline, headers: Mapping[str, str]
) -> Sequence[Event]:
    """What the adapter yields next, up to an ending, or a Failed in place of what it raises. Texts lose the credentials of `headers`."""
    turn_deadline.last_fault = None
    try:
        while not (events := await turn_deadline.next_events(batches)):
            pass
        return _check_events(events, headers)
    except StopAsyncIteration:
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
        if isinstance(event, ERROR_EVENTS) or (isinstance(event, Progress) and event.detail):
            event = CallRedactor(headers).redact_event(event)
        checked.append(event)
        if type(event) in ENDINGS:
            break
    return checked


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
_batches: type[BatchingAdapter] = GuardedAdapter
