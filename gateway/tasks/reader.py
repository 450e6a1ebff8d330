"""Reading tasks: whose they are decides who may, and an agent sees only what its own task caused."""

import hashlib
from collections.abc import AsyncGenerator
from uuid import UUID

import msgspec

from adapters.contract import VendorRef
from adapters.task import Message, encode
from gateway.tasks.events.entries import OPENING_EVENTS, lone_reply
from gateway.tasks.log import RUNNING_STATES, TaskEvent, TaskLog, TaskRow, UnknownTask
from gateway.tasks.turns.store import TurnState
from policies.callers import Caller
from registry.names import FRONT_DOOR

_ref = msgspec.json.Decoder(VendorRef).decode


class IdempotencyConflict(Exception):
    """The Idempotency-Key was used before, with another message."""


class TaskReader:
    """For the broker and the doors, which need no ruling to read what is the caller's own."""

    def __init__(self, tasks: TaskLog) -> None:
        self._tasks = tasks

    async def find_row(self, caller: Caller, agent: str, task_id: str) -> TaskRow:
        """A task of the caller's with this agent, through the front door with any. Raises UnknownTask, for a foreign one too."""
        row = await self._tasks.find(caller.principal.tenant, caller.principal.owner_key, task_id)
        _check_visible(caller, agent, row)
        return row

    async def read_task(self, caller: Caller, agent: str, task_id: str) -> TurnState:
        """A task with its events, in one look. Raises UnknownTask."""
        record = await self._tasks.read_record(caller.principal.tenant, caller.principal.owner_key, task_id)
        _check_visible(caller, agent, record.row)
        return TurnState(record.row, record.events)

    async def read_whole(self, turn_state: TurnState) -> TurnState:
        """A task with all that was ever kept of it."""
        record = await self._tasks.read_record(turn_state.row.tenant, turn_state.row.owner, turn_state.row.id)
        return TurnState(record.row, record.events)

    def follow_turn(self, turn_state: TurnState) -> AsyncGenerator[tuple[TaskEvent, ...], None]:
        """The events after those of `turned`, as they are kept, until the turn ends."""
        return self._tasks.follow(turn_state.row, turn_state.row.last_seq)

    async def lone_reply(self, turned: TurnState, seconds: float) -> Message | None:
        """Returns the Message that is all an agent answers to a new task (A2A 1.0 s3.1.2), and waits `seconds` for it at most.

        None as soon as there is anything else to show: another event, or the agent's Ref to a task of its own.
        """
        if len(turned.events) > OPENING_EVENTS or turned.row.state not in RUNNING_STATES or _ref(turned.row.vendor_ref).task_id:
            return lone_reply(turned.events)
        return lone_reply((*turned.events, *await self._tasks.first_events(turned.row, seconds)))

    def follow_task(self, row: TaskRow, after_seq: int) -> AsyncGenerator[tuple[TaskEvent, ...], None]:
        """The events after number `after`, until the task ends, however often it waits."""
        return self._tasks.follow(row, after_seq, until_end=True)

    async def find_repeated(self, caller: Caller, agent: str, key: str, message: Message, wait_for_end: bool) -> TurnState | None:
        """The task that was opened under this idempotency key, at the front door with any agent; with `wait`, once its turn has ended.

        Raises IdempotencyConflict.
        """
        row = await self._tasks.find_by_idempotency_key(
            caller.principal.tenant, caller.principal.owner_key, agent, scoped_idempotency_key(caller, key)
        )
        if row is None or not caller.delegation.effective_permissions().covers(f"agent:{row.agent}"):
            return None  # the ruling that follows says why not
        if row.request_digest != message_digest(message):
            raise IdempotencyConflict
        if wait_for_end:
            async for _events in self._tasks.follow(row, row.last_seq):
                pass
        return await self.read_whole(TurnState(row, ()))


def _check_visible(caller: Caller, agent: str, row: TaskRow) -> None:
    """Raises UnknownTask for what the caller may not see of what is theirs."""
    caused = not caller.delegation.path or row.parent_id == caller.delegation.task_id
    if agent not in (row.agent, FRONT_DOOR) or not caused or not caller.delegation.effective_permissions().covers(f"agent:{row.agent}"):
        raise UnknownTask


def front_door_idempotency_key(key: str | None) -> str | None:
    """A key of the front door's own, whichever agent it chose: no key of a request has a line break."""
    return None if key is None else f"\n{key}"


def scoped_idempotency_key(caller: Caller, key: str) -> str:
    """An idempotency key in the errand it belongs to: an agent's keys are not its user's."""
    return f"{caller.delegation.task_id}|{key}"


def session_id_of(row: TaskRow) -> str:
    """The gateway's name of a conversation for the agents of vendors: a UUID, of this person, agent, errand and contextId alone."""
    whose = (row.tenant, row.owner, row.agent, row.parent_id, row.context_id)
    return str(UUID(bytes=hashlib.sha256("\n".join(whose).encode()).digest()[:16], version=5))


def message_digest(message: Message) -> str:
    """What makes two messages the same."""
    return hashlib.sha256(encode(message)).hexdigest()
