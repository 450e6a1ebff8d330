"""Goes on with tasks whose people have consented meanwhile, as far as the authority still allows them, and ends the others."""

import asyncio
from functools import partial

import msgspec
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, select, text

from adapters.contract import Failed, VendorRef
from adapters.upstream.pending_consent import unsent, waits
from gateway.calls.authorizer import Ledger
from gateway.calls.broker import Broker
from gateway.calls.outgoing.telemetry import resume_trail
from gateway.calls.outgoing.upstreams import Outside, Trail
from gateway.calls.pausing import Waiting
from gateway.calls.requests import Allowed, Sending, asked_of, granted, outgoing_of, turn_for
from gateway.calls.resumption.approved import Rounds, end_of
from gateway.calls.running import Ready
from gateway.storage.tables import connections, tasks
from gateway.tasks.log import TaskRow, row_of
from gateway.tasks.turns.store import Memory, Turned
from policies.callers import Callers
from policies.delegation.rulings import Question
from policies.tables import approvals
from registry.cards.card import Family

AT_ONCE = 100
_ref = msgspec.json.Decoder(VendorRef).decode


class Consented:
    """One round after the other; any process may take up any task, whichever it was that parked it."""

    def __init__(self, broker: Broker, ledger: Ledger, callers: Callers, memory: Memory, outside: Outside) -> None:
        self._broker = broker
        self._ledger = ledger
        self._callers = callers
        self._memory = memory
        self._outside = outside
        self._busy = asyncio.Lock()
        self._rounds = Rounds(lambda: memory.now() / 1_000_000)
        self._after = ""  # the task that the last look ended with, behind which there may be more

    async def round(self) -> int:
        """How many there were."""
        async with self._busy:
            found = await self._memory.database.read(partial(_due, self._after))
            self._after = found[-1].id if len(found) == AT_ONCE else ""
            return await self._rounds.each_by_itself((row.id, partial(self._one, row)) for row in found if waits(_ref(row.vendor_ref)))

    async def _one(self, row: TaskRow) -> None:
        with resume_trail(row.trace) as trail:
            if why := await end_of(self._go_on(row, trail)):
                await self._end(row, why)

    async def _go_on(self, row: TaskRow, trail: Trail) -> None:
        """Asks the authority again, as things are now: a consent opens a door elsewhere, and is no leave to go there."""
        memory, kept = self._memory, unsent(_ref(row.vendor_ref))
        caller = await self._callers.resumed(row.tenant, row.grant_id, row.parent_id, row.agent)
        target = self._broker.callees.find(caller, row.agent, Family.AGENT)
        message = replace(kept.message, context_id=row.context_id, task_id=row.id)
        how = (kept.skill, kept.accepted_output_modes)
        sending = Sending(row.agent, message, trail, *how, watched=True, metadata=kept.metadata)
        asked = await self._broker.parking.carried(caller, asked_of(sending, target, row), target, row)
        grant = await self._ledger.ruling(caller, asked)
        if isinstance(grant, Question):
            await self._broker.parking.park(caller, Waiting(row, row, message, target, outgoing_of(sending), None), asked, grant)
            return
        turn, adapter = await turn_for(memory, self._outside.adapters, sending, Allowed(grant, target, row, row))
        with self._broker.calls.prepared_turn(sending.trail, target, row) as (trail, span):
            call = self._ledger.calls.make(grant, target, trail, row.id)
            opened = self._broker.parking.going_on(row, granted(row, grant))
            await self._broker.take_up(caller, row, Ready(opened, turn, call, adapter, held=memory.tasks.tail(row), span=span))

    async def _end(self, row: TaskRow, why: str) -> None:
        record = await self._memory.tasks.record(row.tenant, row.owner, row.id)
        await self._broker.parking.reject(Turned(record.row, record.events), Failed(why, rejected=True))


def _due(after: str, connection: Connection) -> list[TaskRow]:
    """Tasks that wait for a consent which was given, and for no approval, or seem to. The first condition is that of their index."""
    query = (
        select(tasks)
        .join(connections, (connections.c.tenant == tasks.c.tenant) & (connections.c.owner == tasks.c.owner))
        .where(text("tasks.state = 'TASK_STATE_AUTH_REQUIRED'"), connections.c.given == 1)
        .where(tasks.c.vendor_ref.like("%" + connections.c.id + "%"))
        .where(~select(approvals.c.id).where(*_open_approval()).exists())
        .where(tasks.c.id > after)
        .order_by(tasks.c.id)
        .limit(AT_ONCE)
    )
    return [row_of(found) for found in connection.execute(query).all()]


def _open_approval() -> tuple[ColumnElement[bool], ...]:
    same = approvals.c.tenant == tasks.c.tenant, approvals.c.task_id == tasks.c.id, approvals.c.grant_id == tasks.c.grant_id
    return (*same, approvals.c.closed.is_(None))
