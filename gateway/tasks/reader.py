"""Reads tasks for their owners. An agent sees only the tasks that its own task caused."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

import msgspec

from adapters.contract import VendorRef
from adapters.task import Message, TaskState, encode
from gateway.tasks.ended_tasks import EndedTasks
from gateway.tasks.events.entries import OPENING_EVENTS, lone_reply
from gateway.tasks.events.live import LiveEvents
from gateway.tasks.log import RUNNING_STATES, TaskEvent, TaskLog, TaskRow, UnknownTask
from gateway.tasks.turns.recorder import TurnState
from policies.callers import Caller
from registry.names import FRONT_DOOR

_ref = msgspec.json.Decoder(VendorRef).decode


class IdempotencyConflict(Exception):
    """The Idempotency-Key was used before with another message."""


class TaskReader:
    """Reads the caller's own tasks for calls and protocol servers; no ruling is needed for them."""

    def __init__(self, tasks: TaskLog) -> None:
        self._tasks = tasks
        self._ended = EndedTasks(tasks.pruning)

    async def find_row(self, caller: Caller, agent: str, task_id: str) -> TaskRow:
        """Returns the caller's task with this agent, or with any agent at the front door.

        Raises UnknownTask, also for tasks of other callers.
        """
        row = await self._tasks.find(caller.principal.tenant, caller.principal.owner_key, task_id)
        _check_visible(caller, agent, row)
        await self._tasks.notify_look(caller, row)
        return row

    async def read_task(self, caller: Caller, agent: str, task_id: str) -> TurnState:
        """Returns a task with its events, by one read at most. Raises UnknownTask."""
        tenant, owner = caller.principal.tenant, caller.principal.owner_key
        record = self._ended.find(tenant, owner, task_id)
        if record is None:
            generation = self._ended.generation
            record = await self._tasks.read_record(tenant, owner, task_id)
            self._ended.keep(record, generation)
        _check_visible(caller, agent, record.row)
        await self._tasks.notify_look(caller, record.row)
        return TurnState(record.row, record.events)

    async def read_whole(self, turn_state: TurnState) -> TurnState:
        """Returns the task with its whole log."""
        record = await self._tasks.read_record(turn_state.row.tenant, turn_state.row.owner, turn_state.row.id)
        return TurnState(record.row, record.events)

    async def wait_for_end(self, turn_state: TurnState) -> TurnState:
        """Returns the task with its whole log when it has ended or waits for an answer, whichever process works on it."""
        live_events = self._tasks.live_events(turn_state.row)
        async for _events in self.follow_turn(turn_state):
            pass
        whole = live_events.events_after(0)
        return await self.read_whole(turn_state) if whole is None else TurnState(*whole)

    async def wait_for_rest(self, turn_state: TurnState) -> TurnState:
        """Returns the task with its whole log when it has ended, waits for an answer, or is suspended: no process works on it."""
        row = turn_state.row
        live_events = self._tasks.live_events(row)
        if not is_suspended(row):
            async with aclosing(self.follow_turn(turn_state)) as batches:
                async for events in batches:
                    if events[-1].kind == "status" and is_suspended(await self._latest_row(live_events, row, events[-1].seq)):
                        break
        whole = live_events.events_after(0)
        return await self.read_whole(turn_state) if whole is None else TurnState(*whole)

    async def _latest_row(self, live_events: LiveEvents, row: TaskRow, seq: int) -> TaskRow:
        known = live_events.events_after(seq)
        return await self._tasks.find(row.tenant, row.owner, row.id) if known is None else known[0]

    def follow_turn(self, turn_state: TurnState, *, until_drain: bool = False) -> AsyncGenerator[tuple[TaskEvent, ...], None]:
        """Yields the events after those of `turn_state` until the turn ends. `until_drain`: see TaskLog.follow."""
        return self._tasks.follow(turn_state.row, turn_state.row.last_seq, until_drain=until_drain)

    async def lone_reply(self, turn_state: TurnState, seconds: float) -> Message | None:
        """Returns the Message that is the agent's whole answer to a new task (A2A 1.0 s3.1.2), after at most `seconds`.

        Returns None as soon as there is anything else to show: another event, or the agent's Ref to a task of its own.
        """
        if len(turn_state.events) > OPENING_EVENTS or turn_state.row.state not in RUNNING_STATES or _ref(turn_state.row.vendor_ref).task_id:
            return lone_reply(turn_state.events)
        return lone_reply((*turn_state.events, *await self._tasks.first_events(turn_state.row, seconds)))

    def follow_task(self, row: TaskRow, after_seq: int) -> AsyncGenerator[tuple[TaskEvent, ...], None]:
        """Yields the events after number `after_seq` until the task ends, also while it waits. Raises TaskLeft when the process drains."""
        return self._tasks.follow(row, after_seq, until_end=True, until_drain=True)

    async def find_repeated(self, caller: Caller, agent: str, key: str, message: Message, wait_for_end: bool) -> TurnState | None:
        """Returns the task that was opened under this idempotency key, at the front door with any agent; else None.

        With `wait_for_end`, returns when the task's turn has ended. Raises IdempotencyConflict.
        """
        row = await self._tasks.find_by_idempotency_key(
            caller.principal.tenant, caller.principal.owner_key, agent, scoped_idempotency_key(caller, key)
        )
        if row is None or not _may_see(caller, row):
            return None  # the ruling that follows gives the reason
        if row.request_digest != message_digest(message):
            raise IdempotencyConflict
        if wait_for_end:
            async for _events in self._tasks.follow(row, row.last_seq):
                pass
        return await self.read_whole(TurnState(row, ()))

    async def join(self, caller: Caller, task_id: str, wait_for_end: bool) -> TurnState:
        """Returns a task of the caller that does already what was asked for. With `wait_for_end`, returns when its turn has ended.

        Raises UnknownTask.
        """
        row = await self._tasks.find(caller.principal.tenant, caller.principal.owner_key, task_id)
        _check_visible(caller, row.agent, row)
        if wait_for_end:
            async for _events in self._tasks.follow(row, row.last_seq):
                pass
        return await self.read_whole(TurnState(row, ()))


def is_suspended(row: TaskRow) -> bool:
    """Returns whether a task goes on later, without a process that works on it now: a run of a workflow that waits."""
    return row.state is TaskState.WORKING and not row.runner


def _check_visible(caller: Caller, agent: str, row: TaskRow) -> None:
    """Raises UnknownTask if the caller may not see a task of their own with this agent or through this token."""
    caused = not caller.delegation.path or row.parent_id == caller.delegation.task_id
    if agent not in (row.agent, FRONT_DOOR) or not caused or not _may_see(caller, row):
        raise UnknownTask


def _may_see(caller: Caller, row: TaskRow) -> bool:
    """Whether a caller's permissions cover the agent or the server of a task.

    An agent that may call only some tools of a server sees the calls that its own task made, whose results it was given.
    """
    permissions, tools = caller.delegation.effective_permissions(), f"tool:{row.agent}.*"
    if permissions.covers(f"agent:{row.agent}") or permissions.covers(tools):
        return True
    has_made = bool(caller.delegation.path) and row.parent_id == caller.delegation.task_id
    return has_made and permissions.overlaps(tools)


def front_door_idempotency_key(key: str | None) -> str | None:
    """Returns the key that the front door uses, whichever agent it chooses. A line break keeps it apart from callers' keys."""
    return None if key is None else f"\n{key}"


def scoped_idempotency_key(caller: Caller, key: str) -> str:
    """Returns the key together with the calling agent's task, so that an agent's keys differ from its user's."""
    return f"{caller.delegation.task_id}|{key}"


def session_id_of(row: TaskRow) -> str:
    """Returns the session id for agents of vendors: a UUID that depends only on user, agent, parent task and contextId."""
    whose = (row.tenant, row.owner, row.agent, row.parent_id, row.context_id)
    return str(UUID(bytes=hashlib.sha256("\n".join(whose).encode()).digest()[:16], version=5))


def message_digest(message: Message) -> str:
    """Returns the digest by which two messages are equal."""
    return hashlib.sha256(encode(message)).hexdigest()
