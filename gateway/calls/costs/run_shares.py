"""Which budgets count what a run of a workflow causes: those of its document, and those that an operator sets for the workflow."""

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from gateway.calls.costs.causing_runs import CausingRun, CausingRuns
from gateway.calls.costs.reservations import BudgetShare, Share
from gateway.calls.limits.limit import WORKFLOW
from gateway.calls.limits.meters import CallLimits, name_of_budget
from gateway.storage.database import ReadFailed
from policies.delegation.chain import Delegation
from registry.cards.budgets import NO_BUDGET, budget_in
from registry.cards.card import Registration

OF_DOCUMENT: Final = "document"
FindWorkflow = Callable[[str, str], Registration | None]
log = structlog.get_logger()


class RunShares:
    """Finds what calls within runs take of budgets. `find_workflow` returns the workflow that a tenant has under a name, or None."""

    def __init__(self, limits: CallLimits, find_workflow: FindWorkflow, runs: CausingRuns) -> None:
        self._limits = limits
        self._find_workflow = find_workflow
        self.runs = runs

    def workflows_in(self, tenant: str, agents: Sequence[str]) -> tuple[Registration, ...]:
        """The workflows among the agents of a chain, the outermost first."""
        return tuple(found for agent in agents if (found := self._find_workflow(tenant, agent)) is not None)

    def count(self, held: Delegation, actor: str, workflows: Sequence[Registration]) -> bool:
        """Whether a budget of a document or a run counts a call with these workflows in its chain."""
        owner = held.principal.owner_key
        return any(budget_in(each.facts) != NO_BUDGET or self._limits.run_budgets(owner, actor, each.name) for each in workflows)

    async def find(self, held: Delegation, actor: str, workflows: Sequence[Registration], task_id: str) -> list[BudgetShare]:
        """The shares without an amount of a call that `task_id` causes. Raises ReadFailed."""
        return self.of(held, actor, workflows, await self.runs.find(held.principal.tenant, task_id))

    def of(self, held: Delegation, actor: str, workflows: Sequence[Registration], runs: Sequence[CausingRun]) -> list[BudgetShare]:
        """The shares without an amount of a call that these runs cause."""
        return [share for each in workflows for share in self._of_workflow(held, actor, each, runs)]

    def _of_workflow(self, held: Delegation, actor: str, workflow: Registration, runs: Sequence[CausingRun]) -> list[BudgetShare]:
        name, document = workflow.name, budget_in(workflow.facts)
        scope, key = f"{WORKFLOW}:{name}", name_of_budget(OF_DOCUMENT, f"{WORKFLOW}:{name}", "", name)
        found = [] if document.per_day is None else [BudgetShare(Share(key, 0, document.per_day), f"{scope}, all runs of a day")]
        for run in runs:
            if run.workflow != name:
                continue
            if document.per_run is not None:
                found.append(BudgetShare(Share(key, 0, document.per_run, run.id), scope))
            found += (
                BudgetShare(Share(budget.name, 0, budget.most, run.id), budget.scope)
                for budget in self._limits.run_budgets(held.principal.owner_key, actor, name)
            )
        return found

    async def runs_of(self, tenant: str, task_id: str) -> tuple[CausingRun, ...]:
        """The runs above a task that has ended its work; none, with a log line, where the database does not answer."""
        try:
            return await self.runs.find(tenant, task_id)
        except ReadFailed:
            log.warning("cost_without_run", task_id=task_id)
            return ()
