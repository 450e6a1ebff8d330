"""Sessions of vendors' agents: one turn at a time in each, in whichever processes of the gateway they are."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, exists, select

from adapters.contract import Adapter, Call, Event, Failed, Turn, VendorRef
from adapters.vendor_faults import BUSY, SESSION_BUSY
from gateway.database import NotKept, NotRead
from gateway.loose import let_go
from gateway.sending import conversation_of
from gateway.tables import processes, tasks
from gateway.tasks import TaskRow, row_of
from gateway.turns import Memory, Turned, Turns
from policies.tables import vault_leases as leases
from registry.card import FEATURES, Registration

SPARE_US: Final = 10_000_000  # after the deadline of a turn, until its ending is surely kept
LOOK_FIRST: Final = 0.05  # seconds between two looks at what another process holds
LOOK_MAX: Final = 1.0
LOOK_GROWTH: Final = 1.6
LAST: Final = 5  # tasks of a session that are looked at for the agent's own ids
_TAKE: Final = (
    "INSERT INTO vault_leases (id, holder, until) VALUES (?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until "
    "WHERE vault_leases.until < ? OR vault_leases.holder = excluded.holder "
    "OR NOT EXISTS (SELECT 1 FROM processes WHERE processes.id = vault_leases.holder)"
)
_LEAVE: Final = "DELETE FROM vault_leases WHERE id = ? AND holder = ?"
_ref = msgspec.json.Decoder(VendorRef).decode


class Sessions:
    """As Turns, for turns that wait for others of their session: in this process by a lock, among processes by a row.

    The row is free again when its turn is over, at the latest some seconds after its deadline, and when its process is no more.
    """

    def __init__(self, memory: Memory, turns: Turns, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._memory = memory
        self._turns = turns
        self._pause = pause
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._leaving: set[asyncio.Task[None]] = set()

    def run(self, adapter: Adapter, turn: Turn, call: Call, opened: Turned) -> Coroutine[Any, Any, Turned]:
        """A turn whose time is over before it is its turn has failed, and may be tried again. Raises EndingNotKept."""
        runs = self._after_others if turn.session and self._may_wait(call.target) else self._turns.run
        return runs(adapter, turn, call, opened)

    def _may_wait(self, target: Registration) -> bool:
        """Whether others may be in the way. On SQLite there is one process, whose adapters see to it."""
        return not self._memory.database.sqlite and not target.facts.get(FEATURES, {}).get("parallel")

    async def _after_others(self, adapter: Adapter, turn: Turn, call: Call, opened: Turned) -> Turned:
        try:
            async with self._alone(turn, call):
                return await self._turns.run(adapter, await self._fresh(turn, opened.row), call, opened)
        except _Late:
            return await self._turns.run(_Busy(), turn, call, opened)

    @asynccontextmanager
    async def _alone(self, turn: Turn, call: Call) -> AsyncIterator[None]:
        """Raises _Late."""
        session = hashlib.sha256(f"session|{call.target.tenant}|{call.target.name}|{turn.session}".encode()).hexdigest()
        lock = self._locks.get(session)
        if lock is None:
            lock = self._locks[session] = asyncio.Lock()
        try:
            async with asyncio.timeout_at(call.deadline):
                await lock.acquire()
        except TimeoutError:
            raise _Late from None
        try:
            await self._take(session, call.deadline)
            yield
        finally:
            leaving = let_go(self._leave(session, lock), "session_not_left")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _take(self, session: str, deadline: float) -> None:
        """Raises _Late."""
        delay = 0.0
        try:
            async with asyncio.timeout_at(deadline):
                while not await self._taken(session, deadline, first=not delay):
                    delay = min(delay * LOOK_GROWTH or LOOK_FIRST, LOOK_MAX)
                    await self._pause(delay)
        except TimeoutError:
            raise _Late from None

    async def _taken(self, session: str, deadline: float, first: bool) -> bool:
        """Looks before it writes, where it has waited. As long as nobody can say whether it is free, it is not."""
        database, now = self._memory.database, self._memory.now()
        left = deadline - asyncio.get_running_loop().time()
        values = (session, self._memory.tasks.runner, now + int(left * 1_000_000) + SPARE_US, now)
        try:
            if first or await database.read(partial(_is_free, session, values[1], now)):
                return await database.write(lambda batch: batch.run(_TAKE, values)) == 1
        except (NotKept, NotRead):
            pass
        return False

    async def _leave(self, session: str, lock: asyncio.Lock) -> None:
        """The next of this process comes after the row is gone, so that nobody's but our own is taken away."""
        try:
            await self._memory.database.write(lambda batch: batch.run(_LEAVE, (session, self._memory.tasks.runner)))
        finally:
            lock.release()

    async def _fresh(self, turn: Turn, row: TaskRow) -> Turn:
        """With the agent's own ids as the last turn of the session left them; a task that goes on has its own."""
        if turn.ref is not None and turn.ref.task_id:
            return turn
        try:
            found = await self._memory.database.read(partial(_before, row))
        except NotRead:
            return turn
        last = next((each for each in found if _ref(each.vendor_ref).context_id), None)
        return turn if last is None else replace(turn, ref=conversation_of(last))


class _Late(Exception):
    """It was not its turn in time."""


class _Busy:
    """An Adapter in the place of one whose agent is at work on another turn of the session."""

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        yield Failed(SESSION_BUSY, kind=BUSY, retryable=True)

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return False


def _is_free(session: str, process: str, now: int, connection: Connection) -> bool:
    """For a process: what it forgot to let go of is its own."""
    lives = exists().where(processes.c.id == leases.c.holder)
    held = select(leases.c.id).where(leases.c.id == session, leases.c.holder != process, leases.c.until >= now, lives)
    return connection.execute(held).first() is None


def _before(row: TaskRow, connection: Connection) -> list[TaskRow]:
    same = (tasks.c.tenant == row.tenant) & (tasks.c.owner == row.owner) & (tasks.c.context_id == row.context_id)
    others = (tasks.c.agent == row.agent) & (tasks.c.parent_id == row.parent_id) & (tasks.c.id != row.id)
    query = select(tasks).where(same & others).order_by(tasks.c.updated.desc()).limit(LAST)
    return [row_of(found) for found in connection.execute(query).all()]


_: type[Adapter] = _Busy
