"""Resumes paused tasks after approval if the authority still allows them, and ends the others."""

import asyncio
from functools import partial

from msgspec.structs import replace

from adapters.task import TaskState
from gateway.calls.agent_requests import (
    AgentRequest,
    AuthorizedRequest,
    check_input_contract,
    restore_unsent_message,
    ruling_request_for_agent,
)
from gateway.calls.authorizer import CallRefused
from gateway.calls.parts import CallParts
from gateway.calls.resumption.resumed_turns import ResumedTurns
from gateway.calls.resumption.rounds import Rounds, find_end_reason
from gateway.calls.turns.pausing import DecidedTask, last_message, outcome_text, shown_exactly
from gateway.tasks.log import TaskRecord
from gateway.tasks.turns.stores import TaskStores
from gateway.telemetry.spans import TraceContext
from gateway.telemetry.upstream_calls import resume_trace_context
from policies.callers import CallerResolver
from policies.delegation.rulings import Question
from registry.cards.card import Family


class ApprovedTaskResumer:
    """Resumes approved tasks, one run at a time. Any process may resume any task."""

    def __init__(self, parts: CallParts, resumed_turns: ResumedTurns, callers: CallerResolver, stores: TaskStores) -> None:
        self._parts = parts
        self._resumed_turns = resumed_turns
        self._callers = callers
        self._stores = stores
        self._round_lock = asyncio.Lock()
        self._rounds = Rounds(lambda: stores.now() / 1_000_000)

    async def run_once(self) -> int:
        """Handles the tasks whose approvals are decided, and returns how many."""
        async with self._round_lock:
            due = await self._parts.pausing.decided_tasks()
            return await self._rounds.each_by_itself((each.approval.requester.task_id, partial(self._resume_or_end, each)) for each in due)

    async def _resume_or_end(self, decided_task: DecidedTask) -> None:
        pausing, where = self._parts.pausing, decided_task.approval.requester
        record = await self._stores.tasks.read_record(where.tenant, where.owner, where.task_id)
        if record.row.state is not TaskState.AUTH_REQUIRED or record.row.grant_id != decided_task.grant_id:
            await pausing.close_approval(decided_task)
        elif decided_task.approval.state != "approved":
            await pausing.reject_and_close(decided_task, record, outcome_text(decided_task.approval))
        else:
            with resume_trace_context(record.row.trace) as trace_context:
                if why := await find_end_reason(self._resume(decided_task, record, trace_context)):
                    await pausing.reject_and_close(decided_task, record, why)

    async def _resume(self, decided_task: DecidedTask, record: TaskRecord, trace_context: TraceContext) -> None:
        """Rules on the request again with the current authority, because an approval alone grants nothing, and starts the turn."""
        row = record.row
        caller = await self._callers.resolve_resumed(row.tenant, decided_task.grant_id, row.parent_id)
        target = self._parts.callees.find(caller, row.agent, Family.AGENT)
        send_options = {
            **decided_task.send_options,
            "accepted_output_modes": tuple(decided_task.send_options.get("accepted_output_modes", ())),
        }
        known = row if row.vendor_ref != "{}" else None  # whether the agent has seen the task
        message = replace(last_message(record), task_id=row.id if known else "")
        request = restore_unsent_message(AgentRequest(row.agent, message, trace_context, is_watched=True, **send_options), known)
        ruling_request = ruling_request_for_agent(request, target, row)
        terms = replace(
            ruling_request.terms, content=shown_exactly(decided_task, target, ruling_request.act), approval=decided_task.approval
        )
        ruling = await self._parts.authorizer.rule_or_refuse(caller, replace(ruling_request, terms=terms))
        if isinstance(ruling, Question):
            raise CallRefused(ruling)
        check_input_contract(request, target, known)
        await self._resumed_turns.resume(caller, request, AuthorizedRequest(ruling, target, row, known))
