"""Cancellation: a task is stopped at its agent, and then whatever it caused; what can't be stopped is said."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import asdict, replace

from adapters.contract import Canceled, CannotCancel, UpstreamFault, VendorRef
from adapters.task import INTERRUPTED
from gateway.calls.authorizer import Ledger
from gateway.calls.limits.limits import LimitReached
from gateway.calls.outgoing.upstreams import Outside, Trail
from gateway.storage.database import NotKept, NotRead
from gateway.tasks.contracts.prompts import keeping
from gateway.tasks.log import RUNNING, TaskRow
from gateway.tasks.reader import TaskReader
from gateway.tasks.turns.in_flight import Share, UnderWay
from gateway.tasks.turns.store import EndingNotKept, Memory, Turned, Turns
from policies.authority import Request
from policies.callers import Caller
from policies.delegation.chain import CannotNarrow, Hop
from policies.delegation.history import STOP
from policies.delegation.permissions import ceiling_of
from policies.delegation.rulings import invoking
from registry.cards.card import Registration, Status
from registry.store import Registry, UnknownName

ASK_SECONDS = 30.0  # that an agent may take to stop
CAUSED_SECONDS = 10.0  # that all the agents of the tasks it caused may take together
AT_ONCE = 16  # of them are asked at the same time
ROUNDS = 4  # of looking for what was begun meanwhile
CAUSED = "urn:interlock:a2a:caused-tasks"  # in metadata
REF_SECONDS = 1.0  # to wait for an agent's first word of its task
LOOK_SECONDS = 0.1  # between two looks for it
WITHDRAWN = (
    "Canceled by the gateway. The agent offers no way to be stopped, so it may go on by itself, but it can do nothing more on your behalf."
)
DROPPED = "Canceled by the gateway. The agent was not told: it may keep its question, and gets no answer to it."
log = structlog.get_logger()
_ref = msgspec.json.Decoder(VendorRef).decode


class NotCancelable(Exception):
    """The agent says that it does not stop, or there is nothing left to cancel."""


class Unstopped(Struct, frozen=True):
    """A task that goes on although the one that caused it was canceled."""

    task_id: str
    agent: str
    reason: str  # not-cancelable | unreachable | late | not-kept


class Stopped(Turned, frozen=True):
    """A canceled task, how many it had caused that were canceled with it, and which were not."""

    caused: int = 0
    unstopped: tuple[Unstopped, ...] = ()


class Cancellation:
    """Stops tasks. It only ends what was allowed once, so whose task it is decides, and no policy; and it goes on when no record of it
    can be kept now.
    """

    def __init__(self, registry: Registry, ledger: Ledger, outside: Outside, *, memory: Memory, turns: Turns, under_way: UnderWay) -> None:
        self._registry = registry
        self._ledger = ledger
        self._memory = memory
        self._outside = outside
        self._turns = turns
        self._under_way = under_way
        self._stopping: set[str] = set()  # tasks whose agent is being asked in the slot of their turn
        self._reader = TaskReader(memory.tasks)

    async def cancel(self, caller: Caller, row: TaskRow, trail: Trail) -> Stopped:
        """Asks the agent to stop; when it did, so are those of all tasks that hang below this one. A task that is not canceled leaves
        those below alone.

        Raises NotCancelable, UpstreamFault when the agent is not reached, EndingNotKept, and LimitReached when there is no slot to ask it.
        """
        try:
            canceled = await self._canceled(caller, row, trail, ASK_SECONDS)
        except EndingNotKept:
            self._under_way.abandon(row.id)
            await self._caused(caller, row, trail)
            raise
        self._under_way.abandon(row.id)
        self._memory.grants.forget()
        stopped, unstopped = await self._caused(caller, row, trail)
        return Stopped(canceled.row, canceled.events, caused=stopped, unstopped=unstopped)

    async def _caused(self, caller: Caller, row: TaskRow, trail: Trail) -> tuple[int, tuple[Unstopped, ...]]:
        """Stops what hangs below a task, until nothing new is found there."""
        deadline = asyncio.get_running_loop().time() + CAUSED_SECONDS
        outcomes: dict[str, Unstopped | None] = {}
        places = asyncio.Semaphore(AT_ONCE)

        async def stop(one: TaskRow) -> None:
            async with places:
                outcomes[one.id] = await self._stopped(caller, one, trail, deadline)
                if outcomes[one.id] is None:
                    self._under_way.abandon(one.id)

        for _ in range(ROUNDS):
            fresh = [one for one in await self._below(row) if one.id not in outcomes]
            if not fresh:
                break
            await asyncio.gather(*(stop(one) for one in fresh))
        unstopped = tuple(outcome for outcome in outcomes.values() if outcome is not None)
        if outcomes:
            log.info("caused_tasks_canceled", task_id=row.id, canceled=len(outcomes) - len(unstopped), left=len(unstopped))
        return len(outcomes) - len(unstopped), unstopped

    async def _below(self, row: TaskRow) -> list[TaskRow]:
        try:
            return await self._memory.tasks.caused(row)
        except NotRead:
            return []

    async def _stopped(self, caller: Caller, row: TaskRow, trail: Trail, deadline: float) -> Unstopped | None:
        """None when it is canceled, or has ended meanwhile."""
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0:
            return Unstopped(row.id, row.agent, "late")
        try:
            async with asyncio.timeout(left):
                await self._canceled(caller, row, trail, left)
        except NotCancelable:
            return await self._going_on(row)
        except UpstreamFault:
            return Unstopped(row.id, row.agent, "unreachable")
        except (TimeoutError, LimitReached):
            return Unstopped(row.id, row.agent, "late")
        except (EndingNotKept, NotKept, NotRead):
            return Unstopped(row.id, row.agent, "not-kept")
        return None

    async def _going_on(self, row: TaskRow) -> Unstopped | None:
        """What is left of a task whose agent does not stop, if it has not ended by itself."""
        try:
            now = await self._memory.tasks.find(row.tenant, row.owner, row.id)
        except NotRead:
            return Unstopped(row.id, row.agent, "not-kept")
        return None if now.ended else Unstopped(row.id, row.agent, "not-cancelable")

    async def _canceled(self, caller: Caller, row: TaskRow, trail: Trail, seconds: float) -> Turned:
        """The task as it ended. One whose agent can't be told is withdrawn from it."""
        if row.ended:
            raise NotCancelable
        row = await self._known(row)
        ref = _ref(row.vendor_ref)
        told = bool(ref.task_id) and await self._told(caller, row, ref, trail, seconds)
        record = await self._memory.tasks.record(row.tenant, row.owner, row.id)
        now = Turned(record.row, record.events)
        if now.row.ended:
            if not told:
                raise NotCancelable
            return now
        log.info("task_canceled", task_id=row.id, agent=row.agent, told=told)
        if told:  # and its question is withdrawn, so the agent's session can go on
            now = replace(now, row=replace(now.row, vendor_ref=keeping(now.row.vendor_ref, ())))
        says = DROPPED if now.row.state in INTERRUPTED else WITHDRAWN
        return await self._turns.stop(now, Canceled(None if told else self._turns.steps.says(now.row, says)))

    async def _known(self, row: TaskRow) -> TaskRow:
        """The task once its agent has told its own id of it, which may take a moment."""
        until = asyncio.get_running_loop().time() + REF_SECONDS
        while row.state in RUNNING and not _ref(row.vendor_ref).task_id and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(LOOK_SECONDS)
            row = await self._memory.tasks.find(row.tenant, row.owner, row.id)
        return row

    async def _told(self, caller: Caller, row: TaskRow, ref: VendorRef, trail: Trail, seconds: float) -> bool:
        """Whether the agent stopped; False when there is no way to tell it. Raises NotCancelable, UpstreamFault and LimitReached."""
        target = self._target(row)
        if target is None:
            return False
        async with self._slot(caller, target, row.id, seconds):
            return await self._ask_to_stop(caller, row, target, (ref, trail, seconds))

    @asynccontextmanager
    async def _slot(self, caller: Caller, target: Registration, task_id: str, seconds: float) -> AsyncIterator[None]:
        """A slot to ask an agent to stop: that of the turn where it is under way here, for one request at a time. Raises LimitReached."""
        slots, own = self._outside.slots, task_id in self._under_way and task_id not in self._stopping
        slot: Share | None = None
        if own:
            self._stopping.add(task_id)
        else:
            until = asyncio.get_running_loop().time() + seconds
            slot = slots.enter(caller, target) or await slots.wait(caller, target, replace(invoking(target.name), verb=STOP), until)
        try:
            yield
        finally:
            self._stopping.discard(task_id) if slot is None else slot.free()

    async def _ask_to_stop(self, caller: Caller, row: TaskRow, target: Registration, how: tuple[VendorRef, Trail, float]) -> bool:
        """`how`: the agent's own id of the task, the trace, and the seconds that the agent has."""
        ref, trail, seconds = how
        request = Request(
            act=invoking(row.agent),
            tenant=row.tenant,
            task_id=row.id,
            txn=row.txn,
            trace_id=trail.trace_id,
        )
        try:
            grant = self._ledger.stopping(caller, request, Hop(row.agent, ceiling_of(target.ceiling)))
        except CannotNarrow:
            return False
        call = self._ledger.calls.make(grant, target, trail, row.id)
        await self._ledger.keep_or_spool(grant, call)
        call = replace(call, deadline=min(call.deadline, asyncio.get_running_loop().time() + seconds))
        await self._outside.adapters.load(target.kind)
        try:
            confirmed = await self._outside.adapters.adapter(target.kind, target.upstream).cancel(ref, call)
        except CannotCancel:
            return False
        except UpstreamFault as fault:
            if row.state not in INTERRUPTED:
                raise
            log.warning("question_not_withdrawn", task_id=row.id, agent=row.agent, problem=fault.public, detail=fault.detail)
            return False
        if not confirmed:
            raise NotCancelable
        return True

    def _target(self, row: TaskRow) -> Registration | None:
        """The agent, unless it may not be called any more."""
        try:
            found = self._registry.find(row.tenant, row.agent)
        except UnknownName:
            return None
        return found if found.status is Status.ACTIVE else None


def told_of(stopped: Stopped, everything: bool) -> dict[str, object]:
    """What became of the tasks it had caused, for the metadata of the answer. Without `everything` no other task is named."""
    left = [asdict(one) if everything else {"reason": one.reason} for one in stopped.unstopped]
    return {"canceled": stopped.caused, "not_canceled": left} if stopped.caused or left else {}
