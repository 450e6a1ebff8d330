"""Watches paused tasks, because an agent may continue by itself, for example after a sign-in elsewhere."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, cast

import msgspec
import structlog

from adapters.contract import Adapter, Call, Event, Turn, VendorRef, Watcher
from adapters.task import INTERRUPTED, Message, Role
from adapters.upstream.pending_consent import is_pending
from gateway.concurrency.fair_shares import Capacity, Portion
from gateway.storage.database import ReadFailed
from gateway.tasks.log import TaskLog
from gateway.tasks.turns.recorder import TurnState
from policies.delegation.rulings import Grant

WATCHED_MAX = 1000  # tasks that one process watches at once, in fair shares; others show the agent's progress with the next answer
NO_MESSAGE = Message("", Role.USER, ())
log = structlog.get_logger()
_decode_ref = msgspec.json.Decoder(VendorRef).decode
RunResumed = Callable[[Adapter, Turn, Call, TurnState], Awaitable[TurnState]]


class WaitingTaskWatcher:
    """Watches each paused task until the grant of its turn ends, the process ends, or the task moves."""

    def __init__(self, tasks: TaskLog, now: Callable[[], int]) -> None:
        self._tasks = tasks
        self._now = now
        self._watches: dict[str, asyncio.Task[None]] = {}
        self.watched_grants: dict[str, Grant] = {}  # the grant of each watched task, by task id
        self._capacity = Capacity(WATCHED_MAX)
        self._resuming: set[asyncio.Task[Any]] = set()  # watches whose agent has continued; an answer does not cancel them

    def watch(self, adapter: Adapter, grant: Grant, renew_call: Callable[[], Call], turn_state: TurnState, run_resumed: RunResumed) -> None:
        """Watches a task that waits now. `renew_call` returns the call with fresh tokens; `run_resumed` runs a continued turn.

        Does nothing if the agent cannot be watched, or if the owner's share of watches is used up.
        """
        key, ref = turn_state.row.id, _decode_ref(turn_state.row.vendor_ref)
        portion = self._capacity.portion_of(grant.delegation.principal.owner_key)
        if not isinstance(adapter, Watcher) or not ref.task_id or is_pending(ref) or portion.exhausted_share() is not None:
            return  # a task that waits for a consent is resumed from its row, by any process
        self.stop_watching(key)
        portion.take()
        self.watched_grants[key] = grant
        watch = self._watches[key] = asyncio.create_task(self._watch_and_resume(adapter, renew_call, turn_state, run_resumed))
        watch.add_done_callback(lambda done: self._on_watch_done(key, portion, done))

    def stop_watching(self, task_id: str) -> None:
        """Stops watching, because an answer has arrived or the task has ended."""
        watch = self._watches.pop(task_id, None)
        if watch is not None and watch not in self._resuming:
            watch.cancel()

    async def close(self) -> None:
        watches = {*self._watches.values(), *self._resuming}
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    def _on_watch_done(self, key: str, portion: Portion, done: "asyncio.Task[None]") -> None:
        portion.free()
        if not self._capacity.whole.count:
            self._capacity.sweep()
        if self._watches.get(key) is done:
            del self._watches[key]
        if key not in self._watches:
            self.watched_grants.pop(key, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("watch_broke", task_id=key, error=type(error).__name__)

    async def _watch_and_resume(
        self, adapter: Watcher, renew_call: Callable[[], Call], turn_state: TurnState, run_resumed: RunResumed
    ) -> None:
        while await self._is_still_waiting(turn_state):
            call = renew_call()
            if self._now() >= call.grant.delegation.not_after * 1_000_000:
                return
            async with aclosing(cast("AsyncGenerator[Event, None]", adapter.watch(_decode_ref(turn_state.row.vendor_ref), call))) as events:
                first = await anext(events, None)
                if first is not None and await self._is_still_waiting(turn_state):
                    log.info("agent_went_on", task_id=turn_state.row.id, agent=turn_state.row.agent)
                    with self._mark_resuming():
                        await run_resumed(_ResumedByAgent(first, events), Turn(NO_MESSAGE, stream=True), call, turn_state)
                    return

    @contextmanager
    def _mark_resuming(self) -> Iterator[None]:
        watch = asyncio.current_task()
        if watch is None:
            raise RuntimeError("a watch runs in a task")
        self._resuming.add(watch)
        try:
            yield
        finally:
            self._resuming.discard(watch)

    async def _is_still_waiting(self, turn_state: TurnState) -> bool:
        """Returns whether the task has not moved since."""
        try:
            row = await self._tasks.find(turn_state.row.tenant, turn_state.row.owner, turn_state.row.id)
        except ReadFailed:
            return True
        return row.last_seq == turn_state.row.last_seq and row.state in INTERRUPTED


class _ResumedByAgent:
    """The adapter of a turn that the agent continued by itself."""

    def __init__(self, first: Event, rest: AsyncIterator[Event]) -> None:
        self._first = first
        self._rest = rest

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        yield self._first
        async for event in self._rest:
            yield event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return False


_: type[Adapter] = _ResumedByAgent
