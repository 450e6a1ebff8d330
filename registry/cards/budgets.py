"""Budgets that the document of a workflow sets for its runs."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

BUDGET_FACT: Final = "budget"  # among the facts of a workflow


class WorkflowBudget(NamedTuple):
    """What one run, and what all runs of a day, may cost, in millionths of the currency; None: as much as other budgets allow."""

    per_run: int | None = None
    per_day: int | None = None

    def to_fact(self) -> dict[str, int]:
        """The budget as the facts of a registration have it."""
        return {name: value for name, value in self._asdict().items() if value is not None}


NO_BUDGET: Final = WorkflowBudget()


def budget_in(facts: Mapping[str, Any]) -> WorkflowBudget:
    """The budget among the facts of a workflow."""
    fact = facts.get(BUDGET_FACT)
    return WorkflowBudget(fact.get("per_run"), fact.get("per_day")) if fact else NO_BUDGET
