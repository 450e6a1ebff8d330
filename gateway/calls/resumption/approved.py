"""Resuming: goes on with tasks that people allowed, as far as the authority still allows them, and ends the others."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

import structlog
from msgspec.structs import replace

from adapters.a2a_client.wire.v1 import BadMessage
from adapters.task import TaskState
from gateway.audit.explanations import sentence
from gateway.calls.authorizer import Ledger, Refused
from gateway.calls.broker import Broker
from gateway.calls.consent.approval_requests import TooManyQuestions
from gateway.calls.limits.limits import TooManyCalls
from gateway.calls.outgoing.telemetry import resume_trail
from gateway.calls.outgoing.upstreams import Outside, Trail
from gateway.calls.pausing import Due, exactly, last_message, said_of
from gateway.calls.requests import Allowed, Sending, asked_of, check_handoff, meant, turn_for
from gateway.calls.revocation.running import KILLED, SAYS
from gateway.calls.running import Ready
from gateway.tasks.conversation import ConversationWaits
from gateway.tasks.log import TaskEnded, TaskRecord
from gateway.tasks.turns.store import Memory
from policies.callers import Callers
from policies.delegation.approval_rows import ApprovalGone
from policies.delegation.history import HistoryMoved
from policies.delegation.kills import Killed
from policies.delegation.rulings import Question
from policies.tokens.verifier import TokenRefused
from registry.cards.card import Family
from registry.health.reachability import NotReachable
from registry.store import UnknownName

STALE = "What it was asked with does not hold any more; send it again."
FAILED_MAX = 10_000  # tasks whose failures are remembered
WAIT_MAX = 300.0  # seconds between two tries of a task that fails again and again
log = structlog.get_logger()


class Rounds:
    """Goes on with tasks one after the other. A task that fails holds up no other, and waits twice as long after each failure.

    `now` counts seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._failed: dict[str, tuple[int, float]] = {}  # task id: how often in a row, and when it is due again

    async def each_by_itself(self, due: Iterable[tuple[str, Callable[[], Awaitable[None]]]]) -> int:
        """Goes on with each task, unless it failed a short while ago. Returns how many it went on with."""
        count = 0
        for task_id, go_on in due:
            times, again = self._failed.get(task_id, (0, 0.0))
            if self._now() < again:
                continue
            count += 1
            try:
                await go_on()
            except Exception as error:  # noqa: BLE001 (the root of what goes on with one task)
                log.error("not_resumed", task_id=task_id, error=type(error).__name__)
                self._note_failure(task_id, times + 1)
            else:
                self._failed.pop(task_id, None)
        return count

    def _note_failure(self, task_id: str, times: int) -> None:
        if len(self._failed) >= FAILED_MAX:
            self._failed.pop(next(iter(self._failed)))
        self._failed[task_id] = times, self._now() + min(float(1 << min(times, 10)), WAIT_MAX)


async def end_of(going_on: Awaitable[None]) -> str:
    """Why a task can't go on, for everybody. Empty where it does, or where the next round tries again: another process has the task,
    there is no room, the agent is down, or another task of its conversation waits for an answer.
    """
    try:
        await going_on
    except (ApprovalGone, TaskEnded, HistoryMoved, TooManyCalls, ConversationWaits, NotReachable):
        return ""
    except Refused as refused:
        return sentence(refused.ruling.decision)
    except Killed:
        return SAYS[KILLED]
    except (TokenRefused, UnknownName, BadMessage, TooManyQuestions):
        return STALE
    return ""


class Resuming:
    """One round after the other; any process may take up any task."""

    def __init__(self, broker: Broker, ledger: Ledger, callers: Callers, memory: Memory, outside: Outside) -> None:
        self._broker = broker
        self._ledger = ledger
        self._callers = callers
        self._memory = memory
        self._outside = outside
        self._busy = asyncio.Lock()
        self._rounds = Rounds(lambda: memory.now() / 1_000_000)

    async def round(self) -> int:
        """How many there were."""
        async with self._busy:
            due = await self._broker.parking.due()
            return await self._rounds.each_by_itself((each.approval.errand.task_id, partial(self._one, each)) for each in due)

    async def _one(self, due: Due) -> None:
        parking, where = self._broker.parking, due.approval.errand
        record = await self._memory.tasks.record(where.tenant, where.owner, where.task_id)
        if record.row.state is not TaskState.AUTH_REQUIRED or record.row.grant_id != due.grant_id:
            await parking.close(due)
        elif due.approval.state != "approved":
            await parking.end(due, record, said_of(due.approval))
        else:
            with resume_trail(record.row.trace) as trail:
                if why := await end_of(self._go_on(due, record, trail)):
                    await parking.end(due, record, why)

    async def _go_on(self, due: Due, record: TaskRecord, trail: Trail) -> None:
        """Asks the authority again, as things are now: what people allowed is no authority by itself."""
        row, memory = record.row, self._memory
        caller = await self._callers.resumed(row.tenant, due.grant_id, row.parent_id)
        target = self._broker.callees.find(caller, row.agent, Family.AGENT)
        how = {**due.how, "accepted_output_modes": tuple(due.how.get("accepted_output_modes", ()))}
        known = row if row.vendor_ref != "{}" else None  # to its agent
        message = replace(last_message(record), task_id=row.id if known else "")
        sending = meant(Sending(row.agent, message, trail, watched=True, **how), known)
        asked = asked_of(sending, target, row)
        terms = replace(asked.terms, exact=exactly(due, target, asked.act), approval=due.approval)
        grant = await self._ledger.ruling(caller, replace(asked, terms=terms))
        if isinstance(grant, Question):
            raise Refused(grant)
        new = replace(row, decision_id=grant.decision.id, grant_id=grant.delegation.grant_id)
        check_handoff(sending, target, known)
        turn, adapter = await turn_for(memory, self._outside.adapters, sending, Allowed(grant, target, row, known))
        with self._broker.calls.prepared_turn(sending.trail, target, row) as (trail, span):
            call = self._ledger.calls.make(grant, target, trail, row.id)
            opened = self._broker.parking.going_on(row, new)
            await self._broker.take_up(caller, row, Ready(opened, turn, call, adapter, held=memory.tasks.tail(row), span=span))
