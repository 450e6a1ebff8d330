"""The contract, enforced on any adapter: one ending, no later than the deadline, and a broken answer is a failure."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Final, cast

from msgspec.structs import replace

from adapters.contract import (
    AGENT_LATE,
    ENDINGS,
    MARGIN,
    Adapter,
    AnswerRefused,
    Call,
    CannotReattach,
    Event,
    Failed,
    Failure,
    InvalidAnswer,
    Reattachable,
    Ref,
    Stoppable,
    Turn,
    Unreachable,
    UpstreamFault,
    VendorRef,
    Watcher,
)
from adapters.task import Task
from adapters.upstream.breaker import LeftAlone
from adapters.upstream.egress import EgressRefused
from adapters.upstream.pending_consent import waits
from adapters.upstream.resilience import Resilience

LATE = "The agent did not answer in time"
QUIET = "The agent gave no sign of life for too long"
STOP_SECONDS: Final = 2.0  # that an agent has to take in that its turn is over
SILENT = "The agent's answer broke off"


class Guarded:
    """An Adapter around another. Nothing follows an ending, and the adapter inside is closed when it came.

    What surely was not sent, or not taken, is tried again or elsewhere, as far as `resilience` has it.
    """

    def __init__(self, inner: Adapter, resilience: Resilience | None = None) -> None:
        self._inner = inner
        self._resilience = resilience or Resilience()

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        """The events of the adapter inside up to its ending, or a Failed in its place."""
        bound = _Bound(call)
        visit = self._resilience.visit(turn.ref, replace(call, heard=bound.heard))
        try:
            while True:
                visit.enter()
                ref = turn.ref if turn.answers else None
                async with aclosing(cast("AsyncGenerator[Event, None]", self._inner.run(turn, visit.call))) as events:
                    event = await _next(events, bound)
                    delay = None
                    if bound.fault is None:
                        visit.heard()
                    elif (delay := visit.failed(bound.fault, bound.left)) is None:
                        yield _still_waiting(turn, bound.fault) or event
                        return
                    begun = False
                    while delay is None:
                        if bound.fault is not None and not begun:
                            event = _still_waiting(turn, bound.fault) or event
                        begun = begun or not isinstance(event, Ref)
                        ref = event.ref if isinstance(event, Ref) else ref
                        if isinstance(event, Failed) and event.kind == AGENT_LATE and ref is not None:
                            await self._stop(ref, visit.call)
                        yield visit.marked(event) if isinstance(event, Ref) else event
                        if isinstance(event, ENDINGS):
                            if bound.fault is not None:
                                visit.broke(bound.fault)
                            return
                        event = await _next(events, bound)
                await self._resilience.pause(delay)
        except LeftAlone as left:
            failed = Failed(left.public, detail=left.detail, kind=left.kind, retryable=True, retry_after=left.retry_after)
            yield _still_waiting(turn, left) or failed
        finally:
            visit.leave()
            bound.lift()

    async def _stop(self, ref: VendorRef, call: Call) -> None:
        """Tells the agent to end a turn whose time is over: one that goes on would keep the conversation's next turn waiting."""
        inner, until = self._inner, asyncio.get_running_loop().time() + STOP_SECONDS
        if not isinstance(inner, Stoppable):
            return
        with suppress(UpstreamFault, EgressRefused, TimeoutError):  # the turn has failed, whether the agent takes this or not
            async with asyncio.timeout_at(until):
                await inner.stop(ref, replace(call, deadline=until))

    async def reattach(self, turn: Turn, known: Task, call: Call) -> AsyncIterator[Event]:
        """As the adapter inside, at the endpoint that has the task; the turn's failure in place of an error. Raises CannotReattach."""
        inner = self._inner
        if not isinstance(inner, Reattachable):
            raise CannotReattach
        bound = _Bound(call)
        sent = self._resilience.at(turn.ref or VendorRef(), replace(call, heard=bound.heard))
        try:
            async with aclosing(cast("AsyncGenerator[Event, None]", inner.reattach(turn, known, sent))) as events:
                while True:
                    event = await _next(events, bound)
                    yield event
                    if isinstance(event, ENDINGS):
                        return
        finally:
            bound.lift()

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        """As the adapter inside. Who can't be reached, or is late, has neither confirmed nor refused: raises UpstreamFault."""
        try:
            async with asyncio.timeout_at(call.deadline):
                return await self._inner.cancel(ref, self._resilience.at(ref, call))
        except EgressRefused as refused:
            raise UpstreamFault(refused.public) from None
        except TimeoutError:
            raise UpstreamFault(LATE, failure=Failure.LATE) from None


class GuardedWatcher(Guarded):
    """The same around an adapter that is a Watcher too."""

    async def watch(self, ref: VendorRef, call: Call) -> AsyncIterator[Event]:
        """As the adapter inside: nothing by the deadline, or when the agent is not reached, as long as nothing has moved."""
        inner, call = cast("Watcher", self._inner), self._resilience.at(ref, call)
        moved, bound = False, _Bound(replace(call, idle=math.inf))
        try:
            async with aclosing(cast("AsyncGenerator[Event, None]", inner.watch(ref, call))) as events:
                while True:
                    event = await _next(events, bound)
                    if isinstance(event, Failed) and event.kind and not moved:
                        return
                    moved = True
                    yield event
                    if isinstance(event, ENDINGS):
                        return
        finally:
            bound.lift()


def guarded(inner: Adapter, resilience: Resilience | None = None) -> Guarded:
    """A Watcher only where the adapter inside is one: who can't see a task move is not asked over and over whether it did."""
    return GuardedWatcher(inner, resilience) if isinstance(inner, Watcher) else Guarded(inner, resilience)


def _still_waiting(turn: Turn, fault: UpstreamFault) -> AnswerRefused | None:
    """What ends a turn with answers that the agent surely did not take; None where it may have taken them, or where a task begins."""
    ref = turn.ref
    if ref is None or not ref.task_id or waits(ref) or not fault.undone:
        return None
    return AnswerRefused(fault.public, fault.detail, "" if fault.unfit else fault.kind, fault.retryable)


class _Bound:
    """A deadline over all waits for one adapter, and over the silence of its agent: one timer for a turn, not one for each event."""

    def __init__(self, call: Call) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = call.deadline
        self._idle = call.idle
        self._heard = self._loop.time()
        self.fault: UpstreamFault | None = None  # that the last event stands for
        self._waits: asyncio.Task[object] | None = None
        self._timer = self._loop.call_at(self._due, self._reached)
        self._over = False

    def heard(self) -> None:
        """Notes a sign of life."""
        self._heard = self._loop.time()

    async def next(self, events: AsyncIterator[Event]) -> Event:
        """Raises TimeoutError, and whatever the adapter raises."""
        self.heard()
        task = self._waits = asyncio.current_task()
        before = task.cancelling() if task else 0
        try:
            if self._over:
                raise TimeoutError
            event = await anext(events)
        except asyncio.CancelledError:
            if not self._over or (task and task.uncancel() > before):
                raise
            raise TimeoutError from None
        finally:
            self._waits = None
        self.heard()
        return event

    @property
    def left(self) -> float:
        """Seconds."""
        return self._deadline - self._loop.time()

    @property
    def problem(self) -> str:
        """What a turn that was ended here did wrong."""
        return LATE if self.left <= MARGIN else QUIET

    def lift(self) -> None:
        self._timer.cancel()

    @property
    def _due(self) -> float:
        """When it is over, on the event loop's clock. Silence counts while somebody waits for the agent."""
        return min(self._deadline, (self._heard if self._waits is not None else self._loop.time()) + self._idle)

    def _reached(self) -> None:
        if (due := self._due) > self._loop.time():
            self._timer = self._loop.call_at(due, self._reached)
            return
        self._over = True
        if self._waits is not None:
            self._waits.cancel()


async def _next(events: AsyncIterator[Event], bound: _Bound) -> Event:
    bound.fault = None
    try:
        return await bound.next(events)
    except StopAsyncIteration:
        bound.fault = InvalidAnswer(SILENT, "the adapter yielded no ending")
    except UpstreamFault as broken:
        bound.fault = broken
    except EgressRefused as refused:
        bound.fault = UpstreamFault(refused.public)
    except TimeoutError:
        bound.fault = Unreachable(bound.problem)
        return Failed(bound.problem, kind=AGENT_LATE)
    fault = bound.fault
    return Failed(fault.public, detail=fault.detail, kind=fault.kind, retryable=fault.retryable, retry_after=fault.retry_after)


_: type[Adapter] = Guarded
