"""Resumes paused tasks after approval if the authority still allows them, and ends the others."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import structlog
from msgspec.structs import replace

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.task import TaskState
from gateway.audit.explanations import explain_refusal
from gateway.calls.authorizer import CallRefused
from gateway.calls.consent.approval_requests import TooManyQuestions
from gateway.calls.limits.meters import TooManyCalls
from gateway.calls.parts import CallParts
from gateway.calls.requests import (
    AgentRequest,
    AuthorizedRequest,
    check_handoff,
    prepare_turn,
    restore_pending_message,
    ruling_request_for_agent,
)
from gateway.calls.resumption.resumed_turns import ResumedTurns
from gateway.calls.revocation.running import KILLED, PUBLIC_TEXTS
from gateway.calls.turns.pausing import DecidedTask, last_message, outcome_text, shown_exactly
from gateway.calls.turns.runner import PreparedTurn
from gateway.tasks.conversation import ConversationWaits
from gateway.tasks.log import TaskEnded, TaskRecord
from gateway.tasks.turns.recorder import TaskStores
from gateway.telemetry.spans import TraceContext
from gateway.telemetry.upstream_calls import resume_trace_context
from policies.callers import CallerResolver
from policies.delegation.approval_rows import ApprovalGone
from policies.delegation.history import HistoryChanged
from policies.delegation.kills import Killed
from policies.delegation.rulings import Question
from policies.tokens.verifier import TokenRefused
from registry.cards.card import Family
from registry.health.reachability import NotReachable
from registry.store import UnknownName

STALE_TEXT = "The request or its authority is no longer valid; send it again."
FAILED_MAX = 10_000  # tasks whose failures are counted
WAIT_MAX = 300.0  # upper bound of seconds between two attempts at a task
log = structlog.get_logger()


class Rounds:
    """Resumes tasks one after another. A task that fails delays no other, and its own wait doubles with each failure.

    `now` returns seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._failed: dict[str, tuple[int, float]] = {}  # task id: failures in a row, and when it is due again

    async def each_by_itself(self, due: Iterable[tuple[str, Callable[[], Awaitable[None]]]]) -> int:
        """Resumes each task that is due and returns how many were attempted. A recent failure postpones its task."""
        count = 0
        for task_id, go_on in due:
            times, retry_at = self._failed.get(task_id, (0, 0.0))
            if self._now() < retry_at:
                continue
            count += 1
            try:
                await go_on()
            except Exception as error:  # noqa: BLE001 (the root of the work on one task)
                log.error("task_not_resumed", task_id=task_id, error=type(error).__name__)
                self._note_failure(task_id, times + 1)
            else:
                self._failed.pop(task_id, None)
        return count

    def _note_failure(self, task_id: str, times: int) -> None:
        if len(self._failed) >= FAILED_MAX:
            self._failed.pop(next(iter(self._failed)))
        self._failed[task_id] = times, self._now() + min(float(1 << min(times, 10)), WAIT_MAX)


async def find_end_reason(resumption: Awaitable[None]) -> str:
    """Returns why a task cannot be resumed, as text for its owner, or an empty text.

    An empty text means that the task was resumed, or that the next run tries again. The next run tries again if another process has the
    task, there is no slot, the agent is down, or another task of its conversation waits for an answer.
    """
    try:
        await resumption
    except (ApprovalGone, TaskEnded, HistoryChanged, TooManyCalls, ConversationWaits, NotReachable):
        return ""
    except CallRefused as refused:
        return explain_refusal(refused.ruling.decision)
    except Killed:
        return PUBLIC_TEXTS[KILLED]
    except (TokenRefused, UnknownName, BadMessage, TooManyQuestions):
        return STALE_TEXT
    return ""


class ApprovedTaskResumer:
    """Resumes approved tasks, one run at a time. Any process may resume any task."""

    def __init__(self, parts: CallParts, resumed_turns: ResumedTurns, callers: CallerResolver, stores: TaskStores) -> None:
        self._parts = parts
        self._authorizer = parts.authorizer
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
        parking, where = self._parts.pausing, decided_task.approval.requester
        record = await self._stores.tasks.read_record(where.tenant, where.owner, where.task_id)
        if record.row.state is not TaskState.AUTH_REQUIRED or record.row.grant_id != decided_task.grant_id:
            await parking.close_approval(decided_task)
        elif decided_task.approval.state != "approved":
            await parking.reject_and_close(decided_task, record, outcome_text(decided_task.approval))
        else:
            with resume_trace_context(record.row.trace) as trace_context:
                if why := await find_end_reason(self._resume(decided_task, record, trace_context)):
                    await parking.reject_and_close(decided_task, record, why)

    async def _resume(self, decided_task: DecidedTask, record: TaskRecord, trace_context: TraceContext) -> None:
        """Rules on the request again with the current authority, because an approval alone grants nothing, and starts the turn."""
        row, stores = record.row, self._stores
        caller = await self._callers.resolve_resumed(row.tenant, decided_task.grant_id, row.parent_id)
        target = self._parts.callees.find(caller, row.agent, Family.AGENT)
        send_options = {
            **decided_task.send_options,
            "accepted_output_modes": tuple(decided_task.send_options.get("accepted_output_modes", ())),
        }
        known = row if row.vendor_ref != "{}" else None  # whether the agent has seen the task
        message = replace(last_message(record), task_id=row.id if known else "")
        request = restore_pending_message(AgentRequest(row.agent, message, trace_context, is_watched=True, **send_options), known)
        ruling_request = ruling_request_for_agent(request, target, row)
        terms = replace(
            ruling_request.terms, content=shown_exactly(decided_task, target, ruling_request.act), approval=decided_task.approval
        )
        grant = await self._authorizer.rule(caller, replace(ruling_request, terms=terms))
        if isinstance(grant, Question):
            raise CallRefused(grant)
        new = replace(row, decision_id=grant.decision.id, grant_id=grant.delegation.grant_id)
        check_handoff(request, target, known)
        turn, adapter = await prepare_turn(stores, self._parts.upstreams.adapters, request, AuthorizedRequest(grant, target, row, known))
        with self._parts.telemetry.prepared_turn(request.trace_context, target, row) as (trace_context, span):
            call = self._authorizer.call_builder.build_call(grant, target, trace_context, row.id)
            opened = self._parts.pausing.resumed_state(row, new)
            await self._resumed_turns.resume(
                caller, row, PreparedTurn(opened, turn, call, adapter, live_events=stores.tasks.live_events(row), span=span)
            )
