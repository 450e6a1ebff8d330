"""The ledger of costs: prices each turn and each tool call, charges it to the budgets, and stores it with the outcome."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

import structlog

from adapters.contract import Call, Event, Suspended
from gateway.calls.costs.entries import USAGE_FIGURES, CostEntry, calling_agents, entry_of, tool_of, usage_of, was_answered
from gateway.calls.limits.meters import CallLimits
from gateway.storage.database import Batch, Database
from gateway.tasks.turns.costs import WriteCost
from policies.delegation.rulings import Grant
from registry.cards.card import WORKFLOW_KIND, Registration
from registry.cards.prices import MILLION

USAGE_MAX: Final = 10_000_000  # tokens of a kind in one turn; a report of more would spend a budget at once, and is not believed
log = structlog.get_logger()
PriceTokens = Callable[[Mapping[str, Any]], Decimal | None]


@dataclass(frozen=True, slots=True)
class Currency:
    """The currency of costs. `per_dollar` converts the prices of tokens, which are in US dollars; None: they stay unpriced."""

    code: str = "USD"
    per_dollar: Decimal | None = Decimal(1)


class CostLedger:
    """Knows what calls cost. `load_prices` returns the function that prices tokens; it is called in a thread, when usage first comes."""

    def __init__(
        self,
        limits: CallLimits,
        database: Database,
        load_prices: Callable[[], PriceTokens],
        *,
        currency: Currency,
        is_workflow: Callable[[str, str], bool],
        now: Callable[[], int],
    ) -> None:
        self._limits = limits
        self._database = database
        self._load_prices = load_prices
        self._currency = currency
        self._is_workflow = is_workflow
        self._now = now

    def pricing_of(self, call: Call, ending: Event) -> Coroutine[Any, Any, WriteCost] | None:
        """What prices and charges a turn that ended, and returns what stores its cost; None where there is nothing to store.

        That is so for a run of a workflow, whose steps have their own costs, and for a turn outside of runs without usage and price.
        """
        target = call.target
        if target.kind == WORKFLOW_KIND or isinstance(ending, Suspended):
            return None
        usage, workflow = usage_of(ending), self._workflow_of(call.grant, target)
        if usage is None and not target.prices and not workflow:
            return None
        price = target.price_of(tool_of(call.grant, target)) if was_answered(ending) else None
        return self._price(call, usage, workflow, price)

    def record_tool_call(self, grant: Grant, target: Registration) -> None:
        """Charges and stores the price of a tool call without a task, without waiting for the commit. Does nothing without a price."""
        price = target.price_of(tool_of(grant, target))
        if price is None:
            return
        entry, decision = entry_of(grant, target, self._workflow_of(grant, target), price), grant.decision
        self._charge(grant, entry)
        at = self._now()
        self._database.post(lambda batch: entry.write(batch, (decision.id, 0), decision.task_id, at))

    async def _price(self, call: Call, usage: Mapping[str, Any] | None, workflow: str, price: int | None) -> WriteCost:
        """The operator's price counts before the reported tokens, so that no agent sets what it costs by its report."""
        if usage is not None and max(usage.get(name, 0) for name in USAGE_FIGURES) > USAGE_MAX:
            log.warning("usage_ignored", agent=call.target.name, txn=call.grant.delegation.txn, usage=usage)
            usage = None
        amount = await self._price_of_tokens(usage) if price is None and usage is not None else price
        entry = entry_of(call.grant, call.target, workflow, amount, usage)
        self._charge(call.grant, entry)
        at = self._now()

        def write(batch: Batch, task_id: str, seq: int) -> None:
            entry.write(batch, (task_id, seq), task_id, at)

        return write

    async def _price_of_tokens(self, usage: Mapping[str, Any]) -> int | None:
        """The price in millionths of the currency; None for an unknown model, or without tokens by kind."""
        rate = self._currency.per_dollar
        if rate is None or "model" not in usage or not ("input_tokens" in usage and "output_tokens" in usage):
            return None
        dollars = await asyncio.to_thread(lambda: self._load_prices()(usage))
        return None if dollars is None else int((dollars * rate * MILLION).to_integral_value(ROUND_HALF_UP))

    def _charge(self, grant: Grant, entry: CostEntry) -> None:
        if entry.amount:
            self._limits.charge(entry.owner, entry.amount, entry.actor, grant.decision.act)

    def _workflow_of(self, grant: Grant, target: Registration) -> str:
        tenant = grant.delegation.principal.tenant
        return next((agent for agent in calling_agents(grant, target) if self._is_workflow(tenant, agent)), "")
