"""Finds ended tasks that are due for deletion and that nothing needs any more. Reads only."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, Table, and_, func, or_, select, text

from gateway.audit.retention.holds import HeldNames, held_transactions
from gateway.audit.retention.terms import DAY_US, RetentionTerms
from gateway.state.effects.tables import subject_effects
from gateway.storage.tables import ENDED_STATES, deliveries, metadata, push_configs, tasks
from policies.tables import approvals

PAGE: Final = 500  # tasks that are looked at together
START: Final = (0, "")
Place = tuple[int, str]  # the last change and the id of a task


class DuePage(NamedTuple):
    """Tasks of one page that can be deleted, the oldest first. `place` is where the next page begins; None: this is the last."""

    task_ids: Sequence[str]
    place: Place | None


def list_tenants(connection: Connection, column: Any) -> list[str]:
    """Returns the tenants that have rows in the table of the column, by one look at its primary key for each."""
    found: list[str] = []
    while (following := connection.execute(select(func.min(column)).where(column > (found[-1] if found else ""))).scalar()) is not None:
        found.append(following)
    return found


def find_cutoff(connection: Connection, tenant: str, terms: RetentionTerms, now: int) -> int | None:
    """Returns the moment of the last change before which tasks are due; None where all are kept."""
    cutoffs = [] if terms.days is None else [now - terms.days * DAY_US]
    if terms.tasks is not None:
        query = select(tasks.c.updated).where(tasks.c.tenant == tenant).order_by(tasks.c.updated.desc())
        over = connection.execute(query.offset(terms.tasks).limit(1)).scalar()
        cutoffs += [] if over is None else [over + 1]
    return min(max(cutoffs), now - terms.min_days * DAY_US) if cutoffs else None


def count_due(connection: Connection, tenant: str, cutoff: int) -> int:
    """Returns how many ended tasks are older than the cutoff. Those that something still needs are among them."""
    due = (tasks.c.tenant == tenant) & (tasks.c.updated < cutoff) & tasks.c.state.in_(ENDED_STATES)
    return int(connection.execute(select(func.count()).select_from(tasks).where(due)).scalar_one())


def find_due(connection: Connection, tenant: str, cutoff: int, held: HeldNames, place: Place = START) -> DuePage:
    """Returns the deletable tasks among the next PAGE that were last changed before the cutoff."""
    if held.whole_tenant:
        return DuePage((), None)
    columns = tasks.c.id, tasks.c.updated, tasks.c.state, tasks.c.runner, tasks.c.owner, tasks.c.txn, tasks.c.parent_id
    after = or_(tasks.c.updated > place[0], and_(tasks.c.updated == place[0], tasks.c.id > place[1]))
    query = select(*columns).where(tasks.c.tenant == tenant, tasks.c.updated >= place[0], tasks.c.updated < cutoff, after)
    looked_at: list[Row[Any]] = [*connection.execute(query.order_by(tasks.c.updated, tasks.c.id).limit(PAGE))]
    following = (looked_at[-1].updated, looked_at[-1].id) if len(looked_at) == PAGE else None
    ended = [row for row in looked_at if row.state in ENDED_STATES and not row.runner and row.owner not in held.people]
    needed = _needed_transactions(connection, tenant, cutoff, ended) | held_transactions(connection, tenant, held)
    rest = [row for row in ended if row.txn not in needed]
    busy = _needed_tasks(connection, tenant, rest)
    return DuePage([row.id for row in rest if row.id not in busy], following)


def _needed_transactions(connection: Connection, tenant: str, cutoff: int, rows: Sequence[Row[Any]]) -> set[str]:
    """Returns the transactions that have a younger or unfinished task, or an open approval: a trace is kept or deleted as a whole."""
    asked = select(approvals.c.txn).where(approvals.c.tenant == tenant, text("closed IS NULL"))
    going_on = or_(tasks.c.state.not_in(ENDED_STATES), tasks.c.updated >= cutoff)
    names = sorted({row.txn for row in rows})
    of_page = select(tasks.c.txn).where(tasks.c.tenant == tenant, tasks.c.txn.in_(names), going_on).distinct()
    return {*connection.execute(asked).scalars(), *(connection.execute(of_page).scalars() if names else ())}


def _needed_tasks(connection: Connection, tenant: str, rows: Sequence[Row[Any]]) -> set[str]:
    """Returns the tasks that a waiting parent, a run, a webhook or an effect under way still needs."""
    ids = [row.id for row in rows]
    if not ids:
        return set()
    pending, live, under_way = text("state = 'pending'"), text("live = 1"), text("state = 'under-way'")
    needed = {
        *_tasks_named_in(connection, metadata.tables["workflow_waits"], tenant, ids),
        *_tasks_named_in(connection, deliveries, tenant, ids, pending),
        *_tasks_named_in(connection, push_configs, tenant, ids, live),
        *_tasks_named_in(connection, subject_effects, tenant, ids, under_way),
    }
    parents = {row.parent_id for row in rows if row.parent_id}
    waiting = select(tasks.c.id).where(tasks.c.tenant == tenant, tasks.c.id.in_(sorted(parents)), tasks.c.state.not_in(ENDED_STATES))
    unfinished = set(connection.execute(waiting).scalars()) if parents else set()
    return needed | {row.id for row in rows if row.parent_id in unfinished}


def _tasks_named_in(connection: Connection, table: Table, tenant: str, ids: Iterable[str], *conditions: Any) -> Iterable[str]:
    query = select(table.c.task_id).where(table.c.tenant == tenant, table.c.task_id.in_(ids), *conditions)
    return connection.execute(query).scalars()
