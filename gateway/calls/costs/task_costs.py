"""What tasks have cost, each with all tasks below it: a run with its steps and the runs and agents that these caused."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, column, func, select, table

from adapters.task import TaskState
from gateway.storage.tables import costs, run_tasks, tasks
from registry.cards.prices import format_price

TASKS_MAX: Final = 100_000  # that are read at once
ENDED_BY_WORK: Final = (TaskState.COMPLETED.value, TaskState.FAILED.value, TaskState.CANCELED.value)
RUNS: Final = table("workflow_runs", *map(column, ("tenant", "id", "workflow")))  # gateway/workflows/runs/tables.py has the whole of it


class Cost(Struct, frozen=True):
    """An amount in millionths of the currency, of `priced` calls; the cost of `unpriced` more calls is unknown.

    Of all these calls, `quarantined` were charged by their price or their reservation, and not by what was reported.
    """

    amount: int = 0
    priced: int = 0
    unpriced: int = 0
    quarantined: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        counts = self.priced + other.priced, self.unpriced + other.unpriced, self.quarantined + other.quarantined
        return Cost(self.amount + other.amount, *counts)

    @property
    def is_known(self) -> bool:
        """Whether the amount says anything: what is unknown as a whole is not nothing."""
        return self.priced > 0 or self.unpriced == 0

    def to_document(self, currency: str) -> dict[str, Any]:
        """The cost as /api shows it: `amount` is a decimal text, or null where it is unknown."""
        amount = format_price(self.amount) if self.is_known else None
        return {"amount": amount, "currency": currency, "unpriced": self.unpriced, "quarantined": self.quarantined}


NOTHING: Final = Cost()


class _TaskOfTree(Struct, frozen=True):
    id: str
    parent_id: str
    has_worked: bool  # it ended after work, and is no run, whose steps have their own costs


class TaskCosts:
    """The costs of the tasks of some transactions."""

    def __init__(
        self,
        found: Iterable[_TaskOfTree],
        turns: Mapping[str, list[int | None]],
        tool_calls: Mapping[str, list[int]],
        quarantined: Mapping[str, int],
    ) -> None:
        self._children: dict[str, list[str]] = defaultdict(list)
        self._own: dict[str, Cost] = {}
        for task in found:
            self._children[task.parent_id].append(task.id)
            amounts = turns.get(task.id, [])
            known = [each for each in amounts if each is not None] + tool_calls.get(task.id, [])
            is_unpriced = task.has_worked and (not amounts or None in amounts)
            self._own[task.id] = Cost(sum(known), len(known), int(is_unpriced), quarantined.get(task.id, 0))

    def of(self, task_id: str) -> Cost | None:
        """What a task and all tasks below it have cost; None for a task of another transaction."""
        if task_id not in self._own:
            return None
        below = [task_id]
        for each in below:  # the list grows during the loop
            below += self._children.get(each, ())
        return sum((self._own[each] for each in below), NOTHING)


def read_task_costs(connection: Connection, tenant: str, txns: Sequence[str]) -> TaskCosts:
    """The costs of the tasks of these transactions."""
    is_run = (RUNS.c.tenant == tasks.c.tenant) & (RUNS.c.id == tasks.c.id)
    is_caused = (run_tasks.c.tenant == tasks.c.tenant) & (run_tasks.c.task_id == tasks.c.id)
    above_id = func.coalesce(run_tasks.c.run_id, tasks.c.parent_id).label("above_id")  # a run that is not waited for has no parent task
    query = select(tasks.c.id, above_id, tasks.c.state, RUNS.c.id.label("run_id")).outerjoin(RUNS, is_run).outerjoin(run_tasks, is_caused)
    query = query.where(tasks.c.tenant == tenant, tasks.c.txn.in_(txns)).limit(TASKS_MAX)
    found = [_TaskOfTree(row.id, row.above_id, row.run_id is None and row.state in ENDED_BY_WORK) for row in connection.execute(query)]
    turns: dict[str, list[int | None]] = defaultdict(list)
    tool_calls: dict[str, list[int]] = defaultdict(list)
    quarantined = Counter[str]()
    columns = costs.c.task_id, costs.c.seq, costs.c.amount, costs.c.quarantined
    entries = select(*columns).where(costs.c.tenant == tenant, costs.c.txn.in_(txns)).limit(TASKS_MAX)
    for row in connection.execute(entries):
        quarantined[row.task_id] += bool(row.quarantined)
        if row.seq:
            turns[row.task_id].append(row.amount)
        elif row.amount is not None:
            tool_calls[row.task_id].append(row.amount)
    return TaskCosts(found, turns, tool_calls, quarantined)
