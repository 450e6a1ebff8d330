"""The ledger of costs: reserves what a call may cost, prices it when it ends, charges it to the budgets, and stores it with the outcome."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from msgspec.structs import replace

from adapters.a2a_client.wire.token_usage import usage_in
from adapters.contract import INVALID, AnswerRefused, Call, Event, Failed, Suspended
from gateway.calls.costs.causing_runs import CausingRuns, with_run
from gateway.calls.costs.contract_prices import TokenPrice, price_by_contract
from gateway.calls.costs.entries import (
    USAGE_FIGURES,
    CostEntry,
    Quarantine,
    calling_agents,
    entry_of,
    quarantine_of,
    tool_of,
    usage_from,
    usage_of,
    was_answered,
)
from gateway.calls.costs.estimates import CostEstimates
from gateway.calls.costs.reservations import BudgetShare, CallPlace, Reservation, Share, charge_unreserved, day_of, settle
from gateway.calls.costs.run_shares import RunShares
from gateway.calls.limits.meters import CallLimits, Meter
from gateway.storage.database import Batch, Database
from gateway.tasks.turns.costs import WriteCost
from policies.callers import Caller
from policies.delegation.chain import Delegation
from policies.delegation.rulings import Act, Grant
from registry.cards.card import WORKFLOW_KIND, Registration
from registry.cards.prices import MILLION

TOKENS_MAX: Final = 10_000_000  # of a kind in one turn; a report of more would spend a budget at once, and is not believed
CALL_TOOL: Final = "callTool"
log = structlog.get_logger()
PriceTokens = Callable[[Mapping[str, Any]], Decimal | None]


class _ReportingResult(msgspec.Struct):
    meta: Any = msgspec.field(default=None, name="_meta")


_decode_result = msgspec.json.Decoder(_ReportingResult).decode


@dataclass(frozen=True, slots=True)
class Currency:
    """The currency of costs. `per_dollar` converts the prices of tokens, which are in US dollars; None: they stay unpriced."""

    code: str = "USD"
    per_dollar: Decimal | None = Decimal(1)


@dataclass(frozen=True, slots=True)
class CostReports:
    """What becomes of reports of usage. `count` counts one that is not believed, by its reason; `record` writes a record of the audit."""

    tokens_max: int = TOKENS_MAX
    count: Callable[[str], None] = lambda reason: None
    record: Callable[[Batch, Mapping[str, Any]], object] = lambda batch, record: None


class CallOutcome(NamedTuple):
    """How a call ended. `price`: what an operator says that it costs, if that is due; `had_effect`: whether it may have cost anything."""

    usage: Mapping[str, Any] | None
    price: int | None
    was_answered: bool
    had_effect: bool = True


class CostLedger:
    """Knows what calls cost. `load_prices` returns the function that prices tokens; it is called in a thread, when usage first comes."""

    def __init__(
        self,
        limits: CallLimits,
        database: Database,
        load_prices: Callable[[], PriceTokens],
        *,
        currency: Currency,
        run_shares: RunShares,
        estimates: CostEstimates,
        now: Callable[[], int],
        clock: Callable[[], float],
        reports: CostReports,
        contract_prices: Mapping[str, TokenPrice],
    ) -> None:
        """`now` returns microseconds since 1970, `clock` the seconds that meters use. `contract_prices` are by model."""
        self.has_budget = limits.has_cost_budget  # so that calls may need reservations
        self._limits = limits
        self._database = database
        self._load_prices = load_prices
        self._currency = currency
        self._run_shares = run_shares
        self._estimates = estimates
        self._now = now
        self._clock = clock
        self._reports = reports
        self._contract_prices = contract_prices

    @property
    def causing_runs(self) -> CausingRuns:
        return self._run_shares.runs

    def reservation_for(self, caller: Caller, act: Act, target: Registration) -> Coroutine[Any, Any, Reservation | None] | None:
        """Returns a coroutine for the reservation that a call has to take; None at once for a call that no cost budget counts.

        The coroutine returns None for a call that costs nothing. It raises BudgetSpent where the process knows that there is no room, and
        ReadFailed.
        """
        if act.verb:
            return None
        counted = self._find_counting(caller.delegation, caller.delegation.actor, act, tuple(hop.agent for hop in caller.delegation.path))
        return self._reserve(caller, act, target, counted) if counted.has_budget else None

    async def _reserve(self, caller: Caller, act: Act, target: Registration, counted: "_Counted") -> Reservation | None:
        tool = act.resource.removeprefix(f"{act.parent}.") if act.action == CALL_TOOL else ""
        price = target.price_of(tool)
        amount = await self._estimates.estimate(target, tool) if price is None else price
        if not amount:
            return None
        held = caller.delegation
        found = [BudgetShare(_share_of(meter), meter.describe_scope(), meter) for meter in counted.meters]
        if counted.within_runs:
            found += await self._run_shares.find(held, held.actor, counted.workflows, held.task_id)
        shares: dict[tuple[str, str], BudgetShare] = {}
        for budget in sorted(found, key=lambda each: each.share.most):
            share = budget.share
            estimated = min(amount, share.most) or amount  # an estimate takes no more than all of a budget, unless that is nothing
            reserved = amount if price is not None else estimated
            shares.setdefault((share.run_id, share.name), budget._replace(share=share._replace(amount=reserved)))
        if not shares:
            return None
        reservation = Reservation(
            tuple(shares.values()),
            amount,
            self._currency.code,
            lambda grant: self._entry_of(grant, target, None),
            lambda error: self._limits.report_refusal(caller, error),
            self._now,
            self._clock,
        )
        reservation.check_known_room()
        return reservation

    def pricing_of(self, call: Call, ending: Event) -> Coroutine[Any, Any, WriteCost] | None:
        """Returns a coroutine that prices a turn and returns the write of its cost; None where there is nothing to store.

        That is so for a run of a workflow, whose steps have their own costs, and for a turn outside of runs and budgets without usage and
        price.
        """
        target = call.target
        if target.kind == WORKFLOW_KIND or isinstance(ending, Suspended):
            return None
        usage, counted = usage_of(ending), self._find_counting_of(call.grant, target)
        if usage is None and not target.prices and not counted.workflows and not counted.has_budget:
            return None
        is_answered = was_answered(ending)
        price = target.price_of(tool_of(call.grant, target)) if is_answered else None
        had_effect = not (ending.had_no_effect if isinstance(ending, Failed) else isinstance(ending, AnswerRefused) and bool(ending.kind))
        return self._price(call.grant, target, CallOutcome(usage, price, is_answered, had_effect), counted)

    def recording_of_tool_call(
        self, grant: Grant, target: Registration, result: bytes | None, *, had_effect: bool = True, is_reserved: bool = False
    ) -> Coroutine[Any, Any, None] | None:
        """Returns a coroutine that prices and stores a tool call without a task; None where there is nothing to store.

        The coroutine does not wait for the commit.

        `result` is None where the server did not answer, and may have had an effect unless `had_effect` is False. `is_reserved` says that
        the call has a reservation, which has to be settled.
        """
        if not tool_of(grant, target) or grant.decision.act.verb:
            return None
        price = target.price_of(tool_of(grant, target)) if result is not None else None
        usage = usage_of_result(result) if result is not None else None
        if price is None and usage is None and not is_reserved:
            return None
        counted = self._find_counting_of(grant, target)
        return self._record_tool_call(grant, target, CallOutcome(usage, price, result is not None, had_effect), counted)

    async def _record_tool_call(self, grant: Grant, target: Registration, outcome: CallOutcome, counted: "_Counted") -> None:
        write = await self._price(grant, target, outcome, counted, is_tool_call=True)
        self._database.post(lambda batch: write(batch, "", 0))

    async def _price(
        self, grant: Grant, target: Registration, outcome: CallOutcome, counted: "_Counted", *, is_tool_call: bool = False
    ) -> WriteCost:
        """The operator's price counts before the reported tokens, so that no agent sets what it costs by its report."""
        usage, quarantined = outcome.usage, quarantine_of(outcome.usage, self._reports.tokens_max)
        if quarantined is not None:
            log.warning("usage_quarantined", reason=quarantined.value, agent=target.name, txn=grant.delegation.txn, usage=dict(usage or {}))
        believed = None if quarantined is not None else usage
        amount = outcome.price
        if amount is None and believed is not None:
            amount = await self._price_of_tokens(believed)
            if amount is not None and counted.has_budget:
                self._estimates.learn(target, tool_of(grant, target), amount)
        entry, shares = self._entry_of(grant, target, amount, believed), [_share_of(meter) for meter in counted.meters]
        if counted.workflows:
            runs = await self._run_shares.runs_of(entry.tenant, grant.decision.task_id)
            entry = with_run(entry, runs)
            if counted.within_runs:
                shares += (each.share for each in self._run_shares.of(grant.delegation, counted.actor, counted.workflows, runs))
        reason = quarantined or _reason_without_cost(outcome, amount)
        charge = _Charge(amount if outcome.had_effect else 0, reason, quarantined, usage, is_tool_call, tuple(shares))
        return self._writer_of(grant, entry, counted.meters, charge)

    def _writer_of(self, grant: Grant, entry: CostEntry, meters: tuple[Meter, ...], charge: "_Charge") -> WriteCost:
        """Returns the write that settles the reservation of the call and stores its cost, in one commit."""
        decision, at = grant.decision, self._now()

        def write(batch: Batch, task_id: str, seq: int) -> None:
            charged = 0
            if charge.shares:
                settled = settle(batch, CallPlace(entry.tenant, decision.id, task_id), charge.cost)
                charged = settled or 0
                if settled is None and charge.cost:
                    charge_unreserved(batch, entry.tenant, day_of(at), charge.shares, charged := charge.cost)
                for meter in meters:
                    meter.taken_until = 0.0  # what is left has changed
            is_by_reservation = entry.amount is None and charged > 0
            stored = replace(entry, charged=charged, quarantined=(charge.reason if is_by_reservation else charge.report_problem) or "")
            if charge.is_tool_call and stored.amount is None and not stored.quarantined:
                return  # a tool call without a price is no call of unknown cost
            place = (task_id, seq) if task_id else (decision.id, 0)
            stored.write(batch, place, task_id or decision.task_id, at)
            if stored.quarantined:
                self._reports.count(stored.quarantined)
                self._reports.record(batch, _quarantine_record(grant, stored, charge.usage, task_id))

        return write

    async def _price_of_tokens(self, usage: Mapping[str, Any]) -> int | None:
        """The price in millionths of the currency; None for an unknown model, or without tokens by kind."""
        if (agreed := price_by_contract(self._contract_prices, usage)) is not None:
            return agreed
        rate = self._currency.per_dollar
        if rate is None or "model" not in usage or not ("input_tokens" in usage and "output_tokens" in usage):
            return None
        dollars = await asyncio.to_thread(lambda: self._load_prices()(usage))
        return None if dollars is None else int((dollars * rate * MILLION).to_integral_value(ROUND_HALF_UP))

    def _entry_of(self, grant: Grant, target: Registration, amount: int | None, usage: Mapping[str, Any] | None = None) -> CostEntry:
        workflows = self._run_shares.workflows_in(grant.delegation.principal.tenant, calling_agents(grant, target))
        return entry_of(grant, target, workflows[0].name if workflows else "", amount, usage)

    def _find_counting_of(self, grant: Grant, target: Registration) -> "_Counted":
        callers = calling_agents(grant, target)
        return self._find_counting(grant.delegation, callers[-1] if callers else "", grant.decision.act, callers)

    def _find_counting(self, held: Delegation, actor: str, act: Act, callers: tuple[str, ...]) -> "_Counted":
        """What counts the costs of a call by `actor`. `callers` are the agents of its chain."""
        workflows = self._run_shares.workflows_in(held.principal.tenant, callers) if callers else ()
        if not (workflows or self.has_budget):
            return NOTHING_COUNTS
        meters = self._limits.cost_meters(held.principal.owner_key, actor, act, workflows) if self.has_budget else ()
        return _Counted(actor, meters, workflows, bool(workflows) and self._run_shares.count(held, actor, workflows))


class _Counted(NamedTuple):
    """What counts the cost of a call: meters of budgets for a day, and with `within_runs` also budgets of runs or documents.

    `workflows` are those in the chain of the call, the outermost first.
    """

    actor: str
    meters: tuple[Meter, ...]
    workflows: tuple[Registration, ...]
    within_runs: bool

    @property
    def has_budget(self) -> bool:
        return bool(self.meters) or self.within_runs


NOTHING_COUNTS: Final = _Counted("", (), (), within_runs=False)


def _share_of(meter: Meter) -> Share:
    return Share(meter.name, 0, meter.cost_max)


class _Charge(NamedTuple):
    """What a call is charged. `cost`: None for what was reserved; `reason`: why its cost is unknown; `report_problem`: of its report."""

    cost: int | None
    reason: Quarantine | None
    report_problem: Quarantine | None
    usage: Mapping[str, Any] | None
    is_tool_call: bool
    shares: tuple[Share, ...]  # of the budgets that count the call


def _reason_without_cost(outcome: CallOutcome, amount: int | None) -> Quarantine | None:
    if amount is not None or not outcome.had_effect:
        return None
    if not outcome.was_answered:
        return Quarantine.NO_ANSWER
    return Quarantine.MISSING if outcome.usage is None else Quarantine.UNPRICED


def usage_of_result(result: bytes) -> dict[str, Any] | None:
    """The usage in `_meta` of an MCP result, with the members that agents' metadata have; None where it has none."""
    if b'"_meta"' not in result:
        return None
    try:
        reported = usage_in(_decode_result(result).meta)
    except msgspec.DecodeError:
        return None
    return None if reported is None else usage_from(reported)


def _quarantine_record(grant: Grant, entry: CostEntry, usage: Mapping[str, Any] | None, task_id: str) -> dict[str, Any]:
    """The record of the audit: which report is not charged, and what is charged instead."""
    decision = grant.decision
    return {
        "kind": "quarantined",
        "tenant": entry.tenant,
        "decision_id": decision.id,
        "txn": entry.txn,
        "task_id": task_id or decision.task_id,
        "agent": entry.target,
        "tool": entry.tool,
        "reason": entry.quarantined,
        "reported": {name: value for name, value in (usage or {}).items() if name in (*USAGE_FIGURES, INVALID)},
        "charged_micros": entry.charged,
    }
