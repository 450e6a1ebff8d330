"""Costs by person, agent, tool, workflow, run, step, tenant or day, as /api/cost shows them."""

import heapq
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import ColumnElement, Connection, Select, case, func, literal, select

from gateway.calls.costs.reports.days import DAY_US, FIGURES, Period, PeriodDays, SumKey, read_summed_days
from gateway.calls.costs.reports.groups import CostGroup
from gateway.calls.costs.task_costs import ENDED_BY_WORK, NOTHING, RUNS, Cost
from gateway.storage.paging import BadCursor, with_index
from gateway.storage.tables import cost_sums, costs, tasks
from registry.cards.prices import format_price

EPOCH: Final = date(1970, 1, 1)
CURSOR_PREFIX: Final = "after:"  # an empty key is a key too


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


SUMMED_KEYS: Final = {  # by what the sums of days are grouped; other groups add up the entries themselves
    CostGroup.DAY: cost_sums.c.day,
    CostGroup.PERSON: cost_sums.c.owner,
    CostGroup.TENANT: cost_sums.c.tenant,
    **dict.fromkeys((CostGroup.AGENT, CostGroup.TOOL, CostGroup.WORKFLOW), cost_sums.c.name),
}


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
    days = _days_of(connection, tenant, wanted)
    queries = _queries_of(tenant, wanted, page.group, days if page.group in SUMMED_KEYS else days.without_sums())
    groups = [_sums_of(connection, query, page.limit + 1, after) for query in queries]
    merged = [_add_up(each) for _, each in groupby(heapq.merge(*(page for page, _ in groups), key=_key_of), key=_key_of)]
    shown = merged[: page.limit]
    total = _add_up(whole for _, whole in groups)
    if after is not None:
        total = _add_up(whole for query in _queries_of(tenant, wanted, None, days) for _, whole in (_sums_of(connection, query, 1, None),))
    return {
        "items": [_document(page.group, each, currency) for each in shown],
        "next": f"{CURSOR_PREFIX}{shown[-1].key}" if len(merged) > page.limit else None,
        "total": total.cost.to_document(currency),
    }


def _key_of(sums: _Sums) -> Any:
    return sums.key if isinstance(sums.key, int) else sums.key.encode()


def _queries_of(tenant: str, wanted: CostFilter, group: CostGroup | None, days: PeriodDays) -> list["Select[Any]"]:
    """What adds up the costs by a group, or with None all of them."""
    keys: Sequence[ColumnElement[Any]] = [literal(0)] * 3
    if group is not None:
        keys = [_priced_key(group), _unpriced_key(group), SUMMED_KEYS.get(group, literal(0))]
    makers = ((_priced_sums, keys[0]), (_unpriced_sums, keys[1]))
    live = [make_query(tenant, wanted, period, key) for period in days.live for make_query, key in makers]
    return [*live, *([_stored_sums(tenant, wanted, days.summed, group, keys[2])] if days.summed else [])]


def _days_of(connection: Connection, tenant: str, wanted: CostFilter) -> PeriodDays:
    """The days of a period. Sums of days know no transactions."""
    first, last = ((day - EPOCH).days for day in (wanted.since, wanted.until))
    return PeriodDays.of(first, last, () if wanted.txn else read_summed_days(connection, tenant, first, last))


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


def _stored_sums(tenant: str, wanted: CostFilter, days: Sequence[int], group: CostGroup | None, key: ColumnElement[Any]) -> "Select[Any]":
    """The sums of days that are over."""
    columns = cost_sums.c
    figures = [func.sum(columns[name]) for name in FIGURES]
    is_by_name = group in (CostGroup.AGENT, CostGroup.TOOL, CostGroup.WORKFLOW)
    dimension = group.value if group is not None and is_by_name else CostGroup.DAY.value
    query = select(key.label("key"), *figures).where(columns.tenant == tenant, columns.day.in_(days), columns.dimension == dimension)
    if group is CostGroup.PERSON and not wanted.owner:
        return query.where(columns.owner != "")
    return query.where(columns.owner == wanted.owner)


def _priced_sums(tenant: str, wanted: CostFilter, period: Period, key: ColumnElement[Any]) -> "Select[Any]":
    """The sums of all entries. An entry without an amount is one that is unpriced."""
    columns, (begin, end) = costs.c, period
    sums = (func.coalesce(func.sum(columns.amount), 0), func.count(columns.amount), func.count() - func.count(columns.amount))
    quarantined = func.coalesce(func.sum(case((columns.quarantined != "", 1), else_=0)), 0)
    more = [func.coalesce(func.sum(each), 0) for each in (columns.input_tokens, columns.output_tokens, columns.charged)]
    query = select(key.label("key"), *sums, quarantined, *more).where(columns.tenant == tenant, columns.at >= begin, columns.at < end)
    query = with_index(query, costs, f"costs_{'txn' if wanted.txn else 'owner' if wanted.owner else 'at'}")
    if wanted.owner:
        query = query.where(columns.owner == wanted.owner)
    return query.where(columns.txn == wanted.txn) if wanted.txn else query


def _unpriced_sums(tenant: str, wanted: CostFilter, period: Period, key: ColumnElement[Any]) -> "Select[Any]":
    """How many tasks ended after work without any entry; runs have steps with their own costs."""
    columns, (begin, end) = tasks.c, period
    has_entry = select(costs.c.id).where(costs.c.tenant == columns.tenant, costs.c.id == columns.id).exists()
    is_run = select(RUNS.c.id).where(RUNS.c.tenant == columns.tenant, RUNS.c.id == columns.id).exists()
    query = select(key.label("key"), literal(0), literal(0), func.count(), *(literal(0) for _ in range(4)))
    query = query.where(columns.tenant == tenant, columns.updated >= begin, columns.updated < end, columns.state.in_(ENDED_BY_WORK))
    if wanted.owner:
        query = query.where(columns.owner == wanted.owner)
    query = query.where(columns.txn == wanted.txn) if wanted.txn else query
    query = with_index(query, tasks, f"tasks_{'txn' if wanted.txn else 'owner' if wanted.owner else 'updated'}")
    return query.where(~has_entry, ~is_run)


def _sums_of(connection: Connection, query: "Select[Any]", limit: int, after: Any) -> tuple[list[_Sums], _Sums]:
    """Returns groups after a key, at most `limit`, and the sum of all groups after it."""
    inner = query.group_by("key").subquery()
    key, *figures = inner.c
    rows = select(key, *figures, *(func.sum(each).over() for each in figures)).order_by(in_byte_order(connection, key)).limit(limit)
    if after is not None:
        rows = rows.where(in_byte_order(connection, key) > after)
    found = connection.execute(rows).all()
    whole = _to_sums(0, found[0][8:15]) if found else _Sums(0, NOTHING)
    return [_to_sums(row[0], row[1:8]) for row in found], whole


def _to_sums(key: Any, figures: Sequence[Any]) -> _Sums:
    return _Sums(key, Cost(*map(int, figures[:4])), *map(int, figures[4:]))


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


def _document(group: CostGroup, sums: _Sums, currency: str) -> dict[str, Any]:
    key = datetime.fromtimestamp(sums.key * 86_400, UTC).date().isoformat() if group is CostGroup.DAY else sums.key
    tokens = {"priced": sums.cost.priced, "input_tokens": sums.input_tokens, "output_tokens": sums.output_tokens}
    return {group.value: key, **sums.cost.to_document(currency), **tokens, "charged": format_price(sums.charged)}


def read_day_sums(connection: Connection, tenant: str, day: int) -> dict[SumKey, list[int]]:
    """Returns the sums of one day since 1970, of each person and of everybody, by day, agent, tool and workflow."""
    wanted, period = CostFilter(EPOCH, EPOCH), (day * DAY_US, (day + 1) * DAY_US)
    sums: dict[SumKey, list[int]] = {}
    for group in (CostGroup.DAY, CostGroup.AGENT, CostGroup.TOOL, CostGroup.WORKFLOW):
        keys = (literal("") for _ in range(2)) if group is CostGroup.DAY else (_priced_key(group), _unpriced_key(group))
        makers = zip((_priced_sums, _unpriced_sums), keys, (costs.c.owner, tasks.c.owner), strict=True)
        for make_query, key, owner in makers:
            query = make_query(tenant, wanted, period, key).add_columns(owner.label("whose"))
            for row in connection.execute(query.group_by("key", "whose")):
                for whose in ("", row.whose):
                    known = sums.setdefault((group.value, whose, row.key), [0] * len(FIGURES))
                    sums[group.value, whose, row.key] = [one + int(more) for one, more in zip(known, row[1:8], strict=True)]
    return sums
