"""What a run of a workflow will probably take: steps, time, tokens and cost, from its past runs."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, select

from adapters.task import TaskState
from gateway.calls.costs.task_costs import Cost, TaskCosts, read_task_costs
from gateway.storage.database import Database
from gateway.storage.tables import ENDED_STATES, tasks
from gateway.workflows.runs.journal import CALL
from gateway.workflows.runs.tables import IS_TASK_OF_RUN, workflow_runs, workflow_steps
from registry.cards.prices import format_price

RUNS_MAX: Final = 100  # past runs that count, the newest
STEPS_MAX: Final = 100_000  # of all of them


class PastStep(Struct, frozen=True):
    """One call of a past run. `tokens` is None where the agent reported no usage."""

    run_id: str
    pointer: str
    target: str
    seconds: float
    has_failed: bool
    tokens: int | None
    task_id: str


class PastRun(Struct, frozen=True):
    """A run that has ended."""

    id: str
    version: str
    has_completed: bool
    seconds: float
    txn: str


async def estimate(database: Database, tenant: str, workflow: str, version: str, currency: str) -> dict[str, Any]:
    """The estimate as /api shows it. Runs of the version `version` count alone where there are any; redrives and forks never count."""

    def work(connection: Connection) -> tuple[list[PastRun], list[PastStep], TaskCosts]:
        found = _past_runs(connection, tenant, workflow)
        runs = [run for run in found if run.version == version] or found
        steps = _past_steps(connection, tenant, [run.id for run in runs])
        return runs, steps, read_task_costs(connection, tenant, sorted({run.txn for run in runs}))

    runs, steps, costs = await database.read(work)
    spent = [cost for run in runs if run.has_completed and (cost := costs.of(run.id)) is not None]
    completed = {run.id for run in runs if run.has_completed}
    of_run: dict[str, list[PastStep]] = {run: [] for run in completed}
    for step in steps:
        if step.run_id in completed:
            of_run[step.run_id].append(step)
    known = [sum(step.tokens or 0 for step in each) for each in of_run.values() if any(step.tokens is not None for step in each)]
    return {
        "workflow": workflow,
        "version": runs[0].version if runs else version,
        "runs": len(runs),
        "completed": len(completed),
        "seconds": shares_of([run.seconds for run in runs if run.has_completed]),
        "steps": shares_of([len(each) for each in of_run.values()]),
        "tokens": shares_of(known),
        "cost": _cost_shares(spent, currency),
        "unpriced_steps": shares_of([cost.unpriced for cost in spent]),
        "by_step": _by_step(steps, costs, currency),
    }


def _past_runs(connection: Connection, tenant: str, workflow: str) -> list[PastRun]:
    query = select(tasks.c.id, workflow_runs.c.version, tasks.c.state, tasks.c.created, tasks.c.updated, tasks.c.txn).join(
        workflow_runs, IS_TASK_OF_RUN
    )
    mine = (workflow_runs.c.tenant == tenant) & (workflow_runs.c.workflow == workflow) & (workflow_runs.c.origin_id == "")
    query = query.where(mine, tasks.c.state.in_(ENDED_STATES)).order_by(workflow_runs.c.started.desc()).limit(RUNS_MAX)
    is_done = TaskState.COMPLETED.value
    rows = connection.execute(query)
    return [PastRun(row.id, row.version, row.state == is_done, _seconds(row.created, row.updated), row.txn) for row in rows]


def _past_steps(connection: Connection, tenant: str, run_ids: Sequence[str]) -> list[PastStep]:
    columns = workflow_steps.c
    what, when = (columns.run_id, columns.step, columns.target, columns.task_id), (columns.started, columns.ended)
    query = select(*what, *when, columns.output_digest, columns.usage)
    query = query.where(columns.tenant == tenant, columns.run_id.in_(run_ids), columns.kind == CALL).limit(STEPS_MAX)
    return [
        PastStep(*row[:3], _seconds(row.started, row.ended), not row.output_digest, tokens_of(row.usage), row.task_id)
        for row in connection.execute(query)
    ]


def _by_step(steps: Sequence[PastStep], costs: TaskCosts, currency: str) -> list[dict[str, Any]]:
    """How long each task of the document took, what it cost and how often it failed, in the order of their pointers."""
    found: dict[str, list[PastStep]] = defaultdict(list)
    for step in steps:
        found[step.pointer].append(step)
    return [
        {
            "step": pointer,
            "target": each[-1].target,
            "count": len(each),
            "failed": sum(step.has_failed for step in each),
            "seconds": shares_of([step.seconds for step in each]),
            "cost": _cost_shares([cost for step in each if (cost := costs.of(step.task_id)) is not None], currency),
        }
        for pointer, each in sorted(found.items())
    ]


def _cost_shares(costs: Sequence[Cost], currency: str) -> dict[str, str] | None:
    """Amounts as decimal texts, of what is known of each; None where nothing is known."""
    shares = shares_of([cost.amount for cost in costs if cost.is_known])
    return None if shares is None else {**{name: format_price(int(amount)) for name, amount in shares.items()}, "currency": currency}


def shares_of(values: Sequence[float]) -> dict[str, float] | None:
    """The value that half, and 95 of 100, do not exceed; None where nothing is known."""
    if not values:
        return None
    ordered = sorted(values)
    return {name: ordered[math.ceil(share * len(ordered)) - 1] for name, share in (("p50", 0.5), ("p95", 0.95))}


def _seconds(started: int, ended: int) -> float:
    return round((ended - started) / 1_000_000, 3)


def tokens_of(usage: str) -> int | None:
    """The tokens that an agent reported, or None."""
    said = msgspec.json.decode(usage) if usage else None
    figures = [said.get(name) for name in ("total_tokens", "input_tokens", "output_tokens")] if isinstance(said, dict) else []
    total, *parts = [each if isinstance(each, int) else None for each in figures] or [None]
    known = [each for each in parts if each is not None]
    return total if total is not None else sum(known) if known else None
