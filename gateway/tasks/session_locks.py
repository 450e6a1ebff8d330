"""Locks of agent sessions: one turn at a time in each session, and none that would affect another task's open question."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final
from weakref import WeakValueDictionary

from msgspec.structs import replace
from sqlalchemy import Connection, select

from adapters.contract import Adapter, AnswerRefused, Call, Event, Failed, Turn, VendorRef
from adapters.upstream.pending_consent import agent_ref, is_pending
from adapters.vendors.sdk.faults import AGENT_BUSY, SESSION_BUSY_TEXT
from gateway.concurrency.background import run_in_background
from gateway.storage.database import ReadFailed, WriteFailed
from gateway.storage.tables import session_locks
from gateway.tasks.conversation import ConversationWaits, check_no_open_question, holds_one_question, read_other_tasks, ref_to_continue
from gateway.tasks.log import TaskRow
from gateway.tasks.reader import session_id_of
from gateway.tasks.turns.recorder import GATEWAY_FAILURE, TurnRecorder, TurnState
from gateway.tasks.turns.stores import TaskStores
from registry.cards.card import Registration

LEASE_SPARE_US: Final = 10_000_000  # after the deadline of a turn, for writing its ending
POLL_FIRST_SECONDS: Final = 0.05  # before the second attempt at a lease of another process
POLL_MAX_SECONDS: Final = 1.0
POLL_GROWTH: Final = 1.6
CONVERSATION_WAITS: Final = "CONVERSATION_WAITS"  # failure kind: another task of the conversation waits for an answer
UNREADABLE_TEXT: Final = "The gateway cannot read its records now, so it sent nothing to the agent"
_ACQUIRE_LEASE: Final = (
    "INSERT INTO session_locks (id, holder, until) VALUES (?, ?, ?) "
    "ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = excluded.until "
    "WHERE session_locks.until < ? OR session_locks.holder = excluded.holder"
)
_RELEASE_LEASE: Final = "DELETE FROM session_locks WHERE id = ? AND holder = ?"


class SessionLocks:
    """Runs the turns of each conversation one after another: with a lock within a process, with a lease among processes.

    A lease ends with its turn, some seconds after the turn's deadline, or with its process. A waiting turn reads the session only after
    the earlier turn's ending is written, so it sees an open question of that turn.
    """

    def __init__(self, stores: TaskStores, turns: TurnRecorder, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._stores = stores
        self._turns = turns
        self._pause = pause
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._releasing: set[asyncio.Task[None]] = set()

    async def run_when_free(self, adapter: Adapter, turn: Turn, call: Call, opening: TurnState) -> TurnState:
        """Runs a turn when its session is free.

        A turn that does not get the session before its deadline fails and can be retried. A turn whose conversation then waits for an
        answer is rejected. Raises EndingNotWritten.
        """
        try:
            async with self._hold_session(call, opening.row):
                return await self._turns.run_and_record(
                    adapter, await self._with_latest_session(turn, call.target, opening.row), call, opening
                )
        except _TurnTooLate:
            instead = _ending_without_sending(turn, SESSION_BUSY_TEXT, AGENT_BUSY)
        except ConversationWaits as open_question:
            instead = Failed(str(open_question), rejected=True, kind=CONVERSATION_WAITS)
        except ReadFailed:
            instead = _ending_without_sending(turn, UNREADABLE_TEXT, GATEWAY_FAILURE)
        return await self._turns.run_and_record(_FixedEndingAdapter(instead), turn, call, opening)

    @asynccontextmanager
    async def _hold_session(self, call: Call, row: TaskRow) -> AsyncIterator[None]:
        """Holds the session of a conversation. Raises _TurnTooLate after the deadline."""
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
            leaving = run_in_background(self._release_lease(session, lock), "session_lease_not_released")
            self._releasing.add(leaving)
            leaving.add_done_callback(self._releasing.discard)

    async def _acquire_lease(self, session: str, deadline: float) -> None:
        """Acquires the lease of a session. Raises _TurnTooLate after the deadline."""
        delay = 0.0
        try:
            async with asyncio.timeout_at(deadline):
                while not await self._try_acquire_lease(session, deadline, first=not delay):
                    delay = min(delay * POLL_GROWTH or POLL_FIRST_SECONDS, POLL_MAX_SECONDS)
                    await self._pause(delay)
        except TimeoutError:
            raise _TurnTooLate from None

    async def _try_acquire_lease(self, session: str, deadline: float, first: bool) -> bool:
        """Returns whether the lease was acquired.

        After a wait, a read comes before the write. While the database fails, the lease counts as held.
        """
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
        """Deletes the lease, then releases the lock, so that the next turn of this process cannot lose its own lease."""
        try:
            await self._stores.database.write(lambda batch: batch.run(_RELEASE_LEASE, (session, self._stores.tasks.runner)))
        finally:
            lock.release()

    async def _with_latest_session(self, turn: Turn, target: Registration, row: TaskRow) -> Turn:
        """Returns the turn with the session as the conversation's last turn left it. A task with a session keeps its own.

        Raises ConversationWaits, and ReadFailed if an open question could be missed.
        """
        own = turn.ref
        if own is not None and agent_ref(own).task_id:
            return turn
        if self._stores.database.is_sqlite and not turn.message.context_id:
            return turn  # a new conversation, which has no other task
        try:
            other_tasks = await read_other_tasks(self._stores.database, row)
        except ReadFailed:
            if holds_one_question(target):
                raise
            return turn
        check_no_open_question(target, other_tasks)
        ref = ref_to_continue(target, row, other_tasks) if own is None or not is_pending(own) else None
        return turn if ref is None else replace(turn, ref=ref, session=ref.session or turn.session)


class _TurnTooLate(Exception):
    """The turn did not get its session before its deadline."""


def _ending_without_sending(turn: Turn, text: str, kind: str) -> Failed | AnswerRefused:
    """Returns the ending of a turn that was not sent to the agent. A task that waits for an answer keeps waiting."""
    is_continued = turn.ref is not None and turn.ref.task_id and not is_pending(turn.ref)
    return AnswerRefused(text, kind=kind, retryable=True) if is_continued else Failed(text, kind=kind, retryable=True)


class _FixedEndingAdapter:
    """An adapter that calls no agent and ends the turn with a fixed event."""

    def __init__(self, ending: Failed | AnswerRefused) -> None:
        self._ending = ending

    async def run(self, turn: Turn, call: Call) -> AsyncIterator[Event]:
        yield self._ending

    async def cancel(self, ref: VendorRef, call: Call) -> bool:
        return False


def _is_free(session: str, process: str, now: int, connection: Connection) -> bool:
    """Whether no other process holds the lock now. What `process` did not release is its own."""
    lock = session_locks.c
    held = select(lock.id).where(lock.id == session, lock.holder != process, lock.until >= now)
    return connection.execute(held).first() is None


_: type[Adapter] = _FixedEndingAdapter
