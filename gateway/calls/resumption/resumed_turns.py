"""Starts turns that no caller waits for: of tasks that waited for people, and of tasks that another process began."""

from collections.abc import Sequence
from contextlib import suppress

from adapters.contract import Call
from gateway.calls.agent_requests import AgentRequest, AuthorizedRequest, prepare_turn, with_grant
from gateway.calls.limits.meters import TooManyCalls, release
from gateway.calls.limits.slots import ShareUsed
from gateway.calls.parts import CallParts
from gateway.calls.turns.runner import PreparedTurn, TurnRunner
from gateway.tasks.turns.in_flight import HeldShare
from gateway.tasks.turns.stores import TaskStores
from policies.callers import Caller
from registry.cards.card import WORKFLOW_KIND


class ResumedTurns:
    """Counts resumed turns in the limits of their callers and agents, and runs them in the background."""

    def __init__(self, parts: CallParts, stores: TaskStores, turn_runner: TurnRunner) -> None:
        self._parts = parts
        self._stores = stores
        self._turn_runner = turn_runner

    async def resume(self, caller: Caller, request: AgentRequest, authorized: AuthorizedRequest) -> None:
        """Prepares, records and runs the next turn of a task that waited.

        Raises TooManyCalls and BudgetSpent, after which the task waits on, and what prepare_turn and record_task_opening raise.
        """
        parts, row, grant, target = self._parts, authorized.row, authorized.grant, authorized.target
        turn, adapter = await prepare_turn(self._stores, parts.upstreams.adapters, request, authorized, parts.find_facts)
        with parts.telemetry.prepared_turn(request.trace_context, target, row) as (trace_context, span):
            call = parts.authorizer.call_builder.build_call(grant, target, trace_context, row.id)
            opened, live_events = parts.pausing.resumed_state(row, with_grant(row, grant)), self._stores.tasks.live_events(row)
            shares = self._acquire_concurrency(caller, call)
            try:
                may_have_budget = parts.costs.has_budget or caller.delegation.path
                reserving = parts.costs.reservation_for(caller, grant.decision.act, target) if may_have_budget else None
                reservation = None if reserving is None else await reserving
                await parts.authorizer.record_task_opening(call, opened, row, reservation=reservation)
            except BaseException:
                release(shares)
                raise
            self._run(PreparedTurn(opened, turn, call, adapter, live_events=live_events, span=span), shares)

    def take_over(self, caller: Caller, prepared_turn: PreparedTurn) -> None:
        """Runs a turn that another process began. The turn counts in the limits of this process, but no limit refuses it."""
        shares: Sequence[HeldShare] = ()
        with suppress(TooManyCalls):
            if prepared_turn.call.target.kind != WORKFLOW_KIND:
                shares = self._acquire_concurrency(caller, prepared_turn.call)
        self._run(prepared_turn, shares)

    def _run(self, prepared_turn: PreparedTurn, shares: Sequence[HeldShare]) -> None:
        task_id = prepared_turn.opened.row.id
        self._parts.in_flight.add_turn(task_id, "")
        self._parts.in_flight.hold_shares(task_id, shares)
        self._turn_runner.run_in_background(prepared_turn)

    def _acquire_concurrency(self, caller: Caller, call: Call) -> Sequence[HeldShare]:
        """The shares of a turn whose request was counted when it arrived. Raises TooManyCalls, and then holds no share."""
        shares = self._parts.upstreams.limits.acquire_concurrency(caller, call.grant.decision.act)
        slot = self._parts.upstreams.slots.try_acquire(caller, call.target)
        if slot is None:
            release(shares)
            raise ShareUsed("All slots of the agent are in use; the task waits until one is free.", 1)
        return (*shares, slot)
