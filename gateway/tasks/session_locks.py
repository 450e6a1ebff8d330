"""Sessions of vendors' agents: one turn at a time in each, and none that would touch another task's open question."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

from msgspec.structs import replace
from sqlalchemy import Connection, exists, select

from adapters.contract import Adapter, AnswerRefused, Call, Event, Failed, Turn, VendorRef
from adapters.upstream.pending_consent import agent_ref, is_pending
from adapters.vendors.sdk.faults import AGENT_BUSY, SESSION_BUSY_TEXT
from gateway.background import run_in_background
from gateway.storage.database import ReadFailed, WriteFailed
from gateway.storage.tables import processes
from gateway.tasks.conversation import ConversationWaits, check_no_open_question, holds_one_question, read_other_tasks, ref_to_continue
from gateway.tasks.log import TaskRow
from gateway.tasks.reader import session_id_of
from gateway.tasks.turns.store import GATEWAY_FAILURE, TaskStores, TurnRecorder, TurnState
from policies.tables import vault_leases as leases
from registry.cards.card import FEATURES, Registration

LEASE_SPARE_US: Final = 10_000_000  # after the deadline of a turn, until its ending is surely kept
POLL_FIRST_SECONDS: Final = 0.05  # seconds between two looks at what another process holds
POLL_MAX_SECONDS: Final = 1.0
POLL_GROWTH: Final = 1.6
CONVERSATION_WAITS: Final = "CONVERSATION_WAITS"  # the kind of a failure: another task of the conversation waits for an answer
UNREADABLE_TEXT: Final = "The gateway can't read its records now, so nothing was sent"
_ACQUIRE_LEASE: Final = (
    "INSERT INTO vault_leases (id, holder, until) VALUES (?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until "
    "WHERE vault_leases.until < ? OR vault_leases.holder = excluded.holder "
    "OR NOT EXISTS (SELECT 1 FROM processes WHERE processes.id = vault_leases.holder)"
)
_RELEASE_LEASE: Final = "DELETE FROM vault_leases WHERE id = ? AND holder = ?"


class SessionLocks:
    """Runs turns as Turns does, one after the other in each conversation: by a lock in this process, by a row among processes.

    The row is free again when its turn is over, at the latest some seconds after its deadline, and when its process is no more. What
    an earlier turn left behind is read once its ending is kept, so a turn that had to wait sees the question that the earlier one asked.
    """

    def __init__(self, stores: TaskStores, turns: TurnRecorder, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._stores = stores
        self._turns = turns
        self._pause = pause
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._releasing: set[asyncio.Task[None]] = set()

    def run(self, adapter: Adapter, turn: Turn, call: Call, opening: TurnState) -> Coroutine[Any, Any, TurnState]:
        """A turn whose time is over before it is its turn has failed, and may be tried again. One whose conversation waits for an answer
        by then is rejected. Raises EndingNotKept.
        """
        has_session = turn.session and not call.target.facts.get(FEATURES, {}).get("parallel")
        return (self._run_after_others if has_session else self._turns.run)(adapter, turn, call, opening)

    async def _run_after_others(self, adapter: Adapter, turn: Turn, call: Call, opening: TurnState) -> TurnState:
        try:
            async with self._hold_session(call, opening.row):
                return await self._turns.run(adapter, await self._with_latest_session(turn, call.target, opening.row), call, opening)
        except _TurnTooLate:
            instead = _ending_without_sending(turn, SESSION_BUSY_TEXT, AGENT_BUSY)
        except ConversationWaits as open_question:
            instead = Failed(str(open_question), rejected=True, kind=CONVERSATION_WAITS)
        except ReadFailed:
            instead = _ending_without_sending(turn, UNREADABLE_TEXT, GATEWAY_FAILURE)
        return await self._turns.run(_FixedEndingAdapter(instead), turn, call, opening)

    @asynccontextmanager
    async def _hold_session(self, call: Call, row: TaskRow) -> AsyncIterator[None]:
        """Raises _Late."""
        session = hashlib.sha256(f"session|{call.target.tenant}|{call.target.name}|{session_id_of(row)}".encode()).hexdigest()
        lock = self._locks.get(session)
        if lock is None:
            lock = self._locks[session] = asyncio.Lock()
        try:
            async with asyncio.timeout_at(call.deadline):
                await lock.acquire()
        except TimeoutError:
            raise _TurnTooLate from None
        if self._stores.database.is_sqlite:  # there is one process
            try:
                yield
            finally:
                lock.release()
            return
        try:
            await self._acquire_lease(session, call.deadline)
            yield
        finally:
            leaving = run_in_background(self._release_lease(session, lock), "session_not_left")
            self._releasing.add(leaving)
            leaving.add_done_callback(self._releasing.discard)

    async def _acquire_lease(self, session: str, deadline: float) -> None:
        """Raises _Late."""
        delay = 0.0
        try:
            async with asyncio.timeout_at(deadline):
                while not await self._try_acquire_lease(session, deadline, first=not delay):
                    delay = min(delay * POLL_GROWTH or POLL_FIRST_SECONDS, POLL_MAX_SECONDS)
                    await self._pause(delay)
        except TimeoutError:
            raise _TurnTooLate from None

    async def _try_acquire_lease(self, session: str, deadline: float, first: bool) -> bool:
        """Looks before it writes, where it has waited. As long as nobody can say whether it is free, it is not."""
        database, now = self._stores.database, self._stores.now()
        left = deadline - asyncio.get_running_loop().time()
        values = (session, self._stores.tasks.runner, now + int(left * 1_000_000) + LEASE_SPARE_US, now)
        try:
            if first or await database.read(partial(_is_free, session, values[1], now)):
                return await database.write(lambda batch: batch.run(_ACQUIRE_LEASE, values)) == 1
        except (WriteFailed, ReadFailed):
            pass
        return False

    async def _release_lease(self, session: str, lock: asyncio.Lock) -> None:
        """The next of this process comes after the row is gone, so that nobody's but our own is taken away."""
        try:
            await self._stores.database.write(lambda batch: batch.run(_RELEASE_LEASE, (session, self._stores.tasks.runner)))
        finally:
            lock.release()

    async def _with_latest_session(self, turn: Turn, target: Registration, row: TaskRow) -> Turn:
        """With the agent's session as the last turn of the conversation left it. A task that goes on has its own.

        Raises ConversationWaits, and NotRead where an open question could be missed.
        """
        own = turn.ref
        if own is not None and agent_ref(own).task_id:
            return turn
        if self._stores.database.is_sqlite and not turn.message.context_id:
            return turn  # the caller does not know the conversation yet, so it has no other task
        try:
            beside = await read_other_tasks(self._stores.database, row)
        except ReadFailed:
            if holds_one_question(target):
                raise
            return turn
        check_no_open_question(target, beside)
        ref = ref_to_continue(target, row, beside) if own is None or not is_pending(own) else None
        return turn if ref is None else replace(turn, ref=ref, session=ref.session or turn.session)


class _TurnTooLate(Exception):
    """It was not its turn in time."""


def _ending_without_sending(turn: Turn, text: str, kind: str) -> Failed | AnswerRefused:
    """The ending of a turn that its agent never heard of: a task that waits for an answer waits on."""
    goes_on = turn.ref is not None and turn.ref.task_id and not is_pending(turn.ref)
    return AnswerRefused(text, kind=kind, retryable=True) if goes_on else Failed(text, kind=kind, retryable=True)


class _FixedEndingAdapter:
    """An Adapter in the place of one that is not asked: it says how the turn ended."""

    def __init__(self, ending: Failed | AnswerRefused) -> None:
        self._ending = ending

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        yield self._ending

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return False


def _is_free(session: str, process: str, now: int, connection: Connection) -> bool:
    """For a process: what it forgot to let go of is its own."""
    lives = exists().where(processes.c.id == leases.c.holder)
    held = select(leases.c.id).where(leases.c.id == session, leases.c.holder != process, leases.c.until >= now, lives)
    return connection.execute(held).first() is None


_: type[Adapter] = _FixedEndingAdapter
