"""Costs by person, agent, tool, workflow, run, step, tenant or day, as /api/cost shows them."""

import heapq
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from itertools import groupby
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Select, case, func, literal, select

from gateway.calls.costs.task_costs import ENDED_BY_WORK, NOTHING, RUNS, Cost
from gateway.storage.paging import BadCursor
from gateway.storage.tables import costs, tasks
from registry.cards.prices import format_price

DAY_US: Final = 86_400_000_000
CURSOR_PREFIX: Final = "after:"  # an empty key is a key too


class CostGroup(StrEnum):
    """What costs are added up by."""

    PERSON = "person"
    AGENT = "agent"
    TOOL = "tool"
    WORKFLOW = "workflow"
    RUN = "run"
    STEP = "step"
    TENANT = "tenant"
    DAY = "day"


class CostFilter(Struct, frozen=True):
    """Which costs: of days from `since` to `until`, in UTC; of one owner or transaction, or of all where these are empty."""

    since: date
    until: date
    owner: str = ""
    txn: str = ""


class CostPage(Struct, frozen=True):
    """Groups of costs after `cursor`, at most `limit`."""

    group: CostGroup
    cursor: str = ""
    limit: int = 50


class _Sums(Struct, frozen=True):
    key: Any
    cost: Cost
    input_tokens: int = 0
    output_tokens: int = 0
    charged: int = 0


def read_costs(connection: Connection, tenant: str, wanted: CostFilter, page: CostPage, currency: str) -> dict[str, Any]:
    """One page as /api shows it, with the total of all pages. Raises BadCursor.

    A task without a price counts as unpriced on the day of its last change.
    """
    after = _key_after(page)
    columns = _priced_key(page.group), _unpriced_key(page.group)
    groups = [
        _sums_of(connection, query, page.limit + 1, after)
        for query in (_priced_sums(tenant, wanted, columns[0]), _unpriced_sums(tenant, wanted, columns[1]))
    ]
    merged = [_add_up(each) for _, each in groupby(heapq.merge(*groups, key=_key_of), key=_key_of)]
    shown = merged[: page.limit]
    total = _add_up(
        each
        for query in (_priced_sums(tenant, wanted, literal(0)), _unpriced_sums(tenant, wanted, literal(0)))
        for each in _sums_of(connection, query, 1, None)
    )
    return {
        "items": [_document(page.group, each, currency) for each in shown],
        "next": f"{CURSOR_PREFIX}{shown[-1].key}" if len(merged) > page.limit else None,
        "total": total.cost.to_document(currency),
    }


def _key_of(sums: _Sums) -> Any:
    return sums.key if isinstance(sums.key, int) else sums.key.encode()


def _priced_key(group: CostGroup) -> ColumnElement[Any]:
    match group:
        case CostGroup.PERSON:
            return costs.c.owner
        case CostGroup.AGENT:
            return costs.c.target
        case CostGroup.TOOL:
            return case((costs.c.tool == "", ""), else_=costs.c.target + "." + costs.c.tool)
        case CostGroup.WORKFLOW:
            return costs.c.workflow
        case CostGroup.RUN:
            return costs.c.run_id
        case CostGroup.STEP:
            return case((costs.c.step == "", ""), else_=costs.c.workflow + costs.c.step)
        case CostGroup.TENANT:
            return costs.c.tenant
    return costs.c.at // DAY_US


def _unpriced_key(group: CostGroup) -> ColumnElement[Any]:
    """Of a task without a cost entry. Each turn within a run has an entry, so these belong to no workflow, and they call no tool."""
    match group:
        case CostGroup.PERSON:
            return tasks.c.owner
        case CostGroup.AGENT:
            return tasks.c.agent
        case CostGroup.TENANT:
            return tasks.c.tenant
        case CostGroup.TOOL | CostGroup.WORKFLOW | CostGroup.RUN | CostGroup.STEP:
            return literal("")
    return tasks.c.updated // DAY_US


def _priced_sums(tenant: str, wanted: CostFilter, key: ColumnElement[Any]) -> "Select[Any]":
    """The sums of all entries. An entry without an amount is one that is unpriced."""
    columns, (first, last) = costs.c, _microseconds(wanted)
    sums = (func.coalesce(func.sum(columns.amount), 0), func.count(columns.amount), func.count() - func.count(columns.amount))
    quarantined = func.coalesce(func.sum(case((columns.quarantined != "", 1), else_=0)), 0)
    more = [func.coalesce(func.sum(each), 0) for each in (columns.input_tokens, columns.output_tokens, columns.charged)]
    query = select(key.label("key"), *sums, quarantined, *more).where(columns.tenant == tenant, columns.at >= first, columns.at < last)
    if wanted.owner:
        query = query.where(columns.owner == wanted.owner)
    return query.where(columns.txn == wanted.txn) if wanted.txn else query


def _unpriced_sums(tenant: str, wanted: CostFilter, key: ColumnElement[Any]) -> "Select[Any]":
    """How many tasks ended after work without any entry; runs have steps with their own costs."""
    columns, (first, last) = tasks.c, _microseconds(wanted)
    has_entry = select(costs.c.id).where(costs.c.tenant == columns.tenant, costs.c.id == columns.id).exists()
    is_run = select(RUNS.c.id).where(RUNS.c.tenant == columns.tenant, RUNS.c.id == columns.id).exists()
    query = select(key.label("key"), literal(0), literal(0), func.count(), *(literal(0) for _ in range(4)))
    query = query.where(columns.tenant == tenant, columns.updated >= first, columns.updated < last, columns.state.in_(ENDED_BY_WORK))
    if wanted.owner:
        query = query.where(columns.owner == wanted.owner)
    query = query.where(columns.txn == wanted.txn) if wanted.txn else query
    return query.where(~has_entry, ~is_run)


def _sums_of(connection: Connection, query: "Select[Any]", limit: int, after: Any) -> list[_Sums]:
    inner = query.group_by("key").subquery()
    rows = select(inner).order_by(in_byte_order(connection, inner.c.key)).limit(limit)
    if after is not None:
        rows = rows.where(in_byte_order(connection, inner.c.key) > after)
    return [_Sums(row[0], Cost(*map(int, row[1:5])), *map(int, row[5:8])) for row in connection.execute(rows)]


def in_byte_order(connection: Connection, key: ColumnElement[Any]) -> ColumnElement[Any]:
    """PostgreSQL orders texts by the database's locale, and pages need the order that Python has too: that of bytes."""
    is_text = connection.dialect.name == "postgresql" and key.type.python_type is str
    return key.collate("C") if is_text else key


def _add_up(sums: Iterable[_Sums]) -> _Sums:
    """The sums of one key."""
    each = list(sums)
    figures = (sum(getattr(one, name) for one in each) for name in ("input_tokens", "output_tokens", "charged"))
    return _Sums(each[0].key if each else 0, sum((one.cost for one in each), NOTHING), *figures)


def _key_after(page: CostPage) -> Any:
    """The last key of the page before. Raises BadCursor."""
    if not page.cursor:
        return None
    prefix, _, key = page.cursor.partition(":")
    if f"{prefix}:" != CURSOR_PREFIX:
        raise BadCursor
    if page.group is not CostGroup.DAY:
        return key
    if not (key.isascii() and key.isdigit() and len(key) < 8):
        raise BadCursor
    return int(key)


def _microseconds(wanted: CostFilter) -> tuple[int, int]:
    """The period from the beginning of `since` to the end of `until`."""
    first, after = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in (wanted.since, wanted.until + timedelta(days=1)))
    return int(first.timestamp()) * 1_000_000, int(after.timestamp()) * 1_000_000


def _document(group: CostGroup, sums: _Sums, currency: str) -> dict[str, Any]:
    key = datetime.fromtimestamp(sums.key * 86_400, UTC).date().isoformat() if group is CostGroup.DAY else sums.key
    tokens = {"priced": sums.cost.priced, "input_tokens": sums.input_tokens, "output_tokens": sums.output_tokens}
    return {group.value: key, **sums.cost.to_document(currency), **tokens, "charged": format_price(sums.charged)}
