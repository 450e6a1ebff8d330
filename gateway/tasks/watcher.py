"""The vigil: looks after tasks that wait for somebody, since their agents may go on by themselves, as after a sign-in elsewhere."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, cast

import msgspec
import structlog

from adapters.contract import Adapter, Call, Event, Turn, VendorRef, Watcher
from adapters.task import INTERRUPTED, Message, Role
from adapters.upstream.pending_consent import waits
from gateway.fair_shares import Capacity, Portion
from gateway.storage.database import NotRead
from gateway.tasks.log import TaskLog
from gateway.tasks.turns.store import Turned
from policies.delegation.rulings import Grant

WATCHED_MAX = 1000  # tasks that one process watches at once, in fair shares; of more, an agent's own move shows when a person answers
NOTHING = Message("", Role.USER, ())
log = structlog.get_logger()
_ref = msgspec.json.Decoder(VendorRef).decode
GoOn = Callable[[Adapter, Turn, Call, Turned], Awaitable[Turned]]


class Vigil:
    """Ends with the authority of the turn that asked, with the process, or when the task is moved by anybody."""

    def __init__(self, tasks: TaskLog, now: Callable[[], int]) -> None:
        self._tasks = tasks
        self._now = now
        self._watches: dict[str, asyncio.Task[None]] = {}
        self.watched: dict[str, Grant] = {}  # by whose leave
        self._capacity = Capacity(WATCHED_MAX)
        self._moving: set[asyncio.Task[Any]] = set()  # those whose agent went on: nobody's answer ends them

    def begin(self, adapter: Adapter, grant: Grant, renewed: Callable[[], Call], turned: Turned, go_on: GoOn) -> None:
        """Watches a task that waits now. `renewed` makes the call anew, whose tokens do not last as long; `go_on` runs what follows."""
        key, ref = turned.row.id, _ref(turned.row.vendor_ref)
        portion = self._capacity.portion(grant.delegation.principal.owner)
        if not isinstance(adapter, Watcher) or not ref.task_id or waits(ref) or portion.binding() is not None:
            return  # what waits for a consent is a row, for whichever process
        self.end(key)
        portion.take()
        self.watched[key] = grant
        watch = self._watches[key] = asyncio.create_task(self._watch(adapter, renewed, turned, go_on))
        watch.add_done_callback(lambda done: self._over(key, portion, done))

    def end(self, task_id: str) -> None:
        """Somebody answers."""
        watch = self._watches.pop(task_id, None)
        if watch is not None and watch not in self._moving:
            watch.cancel()

    async def close(self) -> None:
        watches = {*self._watches.values(), *self._moving}
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    def _over(self, key: str, portion: Portion, done: "asyncio.Task[None]") -> None:
        portion.free()
        if not self._capacity.whole.count:
            self._capacity.sweep()
        if self._watches.get(key) is done:
            del self._watches[key]
        if key not in self._watches:
            self.watched.pop(key, None)
        if not done.cancelled() and (error := done.exception()) is not None:
            log.error("watch_broke", task_id=key, error=type(error).__name__)

    async def _watch(self, adapter: Watcher, renewed: Callable[[], Call], turned: Turned, go_on: GoOn) -> None:
        while await self._waits(turned):
            call = renewed()
            if self._now() >= call.grant.delegation.not_after * 1_000_000:
                return
            async with aclosing(cast("AsyncGenerator[Event, None]", adapter.watch(_ref(turned.row.vendor_ref), call))) as events:
                first = await anext(events, None)
                if first is not None and await self._waits(turned):
                    log.info("agent_went_on", task_id=turned.row.id, agent=turned.row.agent)
                    with self._going_on():
                        await go_on(_GoingOn(first, events), Turn(NOTHING, stream=True), call, turned)
                    return

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        watch = asyncio.current_task()
        if watch is None:
            raise RuntimeError("a watch runs in a task")
        self._moving.add(watch)
        try:
            yield
        finally:
            self._moving.discard(watch)

    async def _waits(self, turned: Turned) -> bool:
        """Whether nobody has moved the task since."""
        try:
            row = await self._tasks.find(turned.row.tenant, turned.row.owner, turned.row.id)
        except NotRead:
            return True
        return row.last_seq == turned.row.last_seq and row.state in INTERRUPTED


class _GoingOn:
    """The adapter of a turn that the agent began by itself."""

    def __init__(self, first: Event, rest: AsyncIterator[Event]) -> None:
        self._first = first
        self._rest = rest

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        yield self._first
        async for event in self._rest:
            yield event

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return False


_: type[Adapter] = _GoingOn
