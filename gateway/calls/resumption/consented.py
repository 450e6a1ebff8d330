"""Resumes paused tasks after their users have consented, if the authority still allows them, and ends the others."""

import asyncio
from functools import partial

import msgspec
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, select, text

from adapters.contract import Failed, VendorRef
from adapters.upstream.pending_consent import unsent_message
from gateway.calls.agent_requests import AgentRequest, AuthorizedRequest, approval_message_of, ruling_request_for_agent
from gateway.calls.parts import CallParts
from gateway.calls.resumption.resumed_turns import ResumedTurns
from gateway.calls.resumption.rounds import Rounds, find_end_reason
from gateway.calls.turns.pausing import PausedTask
from gateway.storage.tables import connections, tasks
from gateway.tasks.log import TaskRow, to_task_row
from gateway.tasks.turns.recorder import TurnState
from gateway.tasks.turns.stores import TaskStores
from gateway.telemetry.spans import TraceContext
from gateway.telemetry.upstream_calls import resume_trace_context
from policies.callers import CallerResolver
from policies.delegation.rulings import Question
from policies.tables import approvals
from registry.cards.card import Family

BATCH_SIZE = 100
_decode_ref = msgspec.json.Decoder(VendorRef).decode


class ConsentedTaskResumer:
    """Resumes tasks whose users have consented, one run at a time. Any process may resume any task, whichever process paused it."""

    def __init__(self, parts: CallParts, resumed_turns: ResumedTurns, callers: CallerResolver, stores: TaskStores) -> None:
        self._parts = parts
        self._resumed_turns = resumed_turns
        self._callers = callers
        self._stores = stores
        self._round_lock = asyncio.Lock()
        self._rounds = Rounds(lambda: stores.now() / 1_000_000)
        self._after_task_id = ""  # the last task of a full batch, after which the next run continues

    async def run_once(self) -> int:
        """Handles one batch of tasks whose consent was given, and returns how many."""
        async with self._round_lock:
            found = await self._stores.database.read(partial(_read_due, self._after_task_id))
            self._after_task_id = found[-1].id if len(found) == BATCH_SIZE else ""
            return await self._rounds.each_by_itself((row.id, partial(self._resume_or_end, row)) for row in found)

    async def _resume_or_end(self, row: TaskRow) -> None:
        with resume_trace_context(row.trace) as trace_context:
            if why := await find_end_reason(self._resume(row, trace_context)):
                await self._reject(row, why)

    async def _resume(self, row: TaskRow, trace_context: TraceContext) -> None:
        """Rules on the request again with the current authority, because a consent elsewhere grants nothing here, and starts the turn."""
        pending = unsent_message(_decode_ref(row.vendor_ref))
        caller = await self._callers.resolve_resumed(row.tenant, row.grant_id, row.parent_id, row.agent)
        target = self._parts.callees.find(caller, row.agent, Family.AGENT)
        message = replace(pending.message, context_id=row.context_id, task_id=row.id)
        send_options = (pending.skill, pending.accepted_output_modes)
        request = AgentRequest(row.agent, message, trace_context, *send_options, is_watched=True, metadata=pending.metadata)
        ruling_request = await self._parts.pausing.with_earlier_approval(
            caller, ruling_request_for_agent(request, target, row), target, row
        )
        ruling = await self._parts.authorizer.rule_or_refuse(caller, ruling_request)
        if isinstance(ruling, Question):
            await self._parts.pausing.pause(
                caller, PausedTask(row, row, message, target, approval_message_of(request), None), ruling_request, ruling
            )
            return
        await self._resumed_turns.resume(caller, request, AuthorizedRequest(ruling, target, row, row))

    async def _reject(self, row: TaskRow, problem: str) -> None:
        record = await self._stores.tasks.read_record(row.tenant, row.owner, row.id)
        await self._parts.pausing.reject(TurnState(record.row, record.events), Failed(problem, rejected=True))


def _read_due(after_task_id: str, connection: Connection) -> list[TaskRow]:
    """Returns tasks that wait for a given consent and for no approval. The first condition is that of the partial index."""
    same_owner = (connections.c.tenant == tasks.c.tenant) & (connections.c.owner == tasks.c.owner)
    query = (
        select(tasks)
        .join(connections, same_owner & (connections.c.id == tasks.c.awaited_connection_id))
        .where(text("tasks.state = 'TASK_STATE_AUTH_REQUIRED'"), connections.c.given == 1)
        .where(~select(approvals.c.id).where(*_open_approval_conditions()).exists())
        .where(tasks.c.id > after_task_id)
        .order_by(tasks.c.id)
        .limit(BATCH_SIZE)
    )
    return [to_task_row(found) for found in connection.execute(query).all()]


def _open_approval_conditions() -> tuple[ColumnElement[bool], ...]:
    same = approvals.c.tenant == tasks.c.tenant, approvals.c.task_id == tasks.c.id, approvals.c.grant_id == tasks.c.grant_id
    return (*same, approvals.c.closed.is_(None))
