"""Costs by person, agent, tool, workflow, run, step, tenant or day, as /api/cost shows them."""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection, Select, literal

from gateway.calls.costs.reports.groups import CostGroup
from gateway.calls.costs.reports.levels import CostPeriod, Period, read_period
from gateway.calls.costs.reports.queries import (
    STORED_COLUMNS,
    SumShape,
    key_after_page_query,
    live_page_query,
    priced_key,
    priced_sums,
    stored_page_query,
    unpriced_key,
    unpriced_sums,
)
from gateway.calls.costs.reports.stored_sums import FIGURES, SumKey
from gateway.calls.costs.task_costs import NOTHING, Cost
from gateway.storage.paging import BadCursor
from gateway.storage.tables import costs, tasks
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


Values = Mapping[str, Any]  # of the parameters of a query
SPANS_LOOKED_AT: Final = 7  # in which the end of a page is looked for


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
    shape, values = _question(connection, tenant, wanted, page)
    period = _read_period(connection, tenant, wanted)
    has_stored = page.group is CostGroup.DAY or page.group in STORED_COLUMNS
    upto = _last_key(connection, shape, values, period) if has_stored else None
    bounded = replace(shape, has_upto=upto is not None)
    groups = _read_groups(connection, bounded, {**values, "upto": upto}, period if has_stored else period.without_sums())
    merged = [_add_up(each) for _, each in groupby(heapq.merge(*(page for page, _ in groups), key=_key_of), key=_key_of)]
    shown = merged[: page.limit]
    if bounded.has_after or bounded.has_upto:
        groups = _read_groups(connection, shape.of_everything(), values, period)
    total = _add_up(whole for _, whole in groups)
    return {
        "items": [_document(page.group, each, currency) for each in shown],
        "next": f"{CURSOR_PREFIX}{shown[-1].key}" if len(merged) > page.limit else None,
        "total": total.cost.to_document(currency),
    }


def _key_of(sums: _Sums) -> Any:
    return sums.key if isinstance(sums.key, int) else sums.key.encode()


def _question(connection: Connection, tenant: str, wanted: CostFilter, page: CostPage) -> tuple[SumShape, Values]:
    """Returns the shape of the queries of a page and their parameters. Raises BadCursor."""
    after, is_postgres = _key_after(page), connection.dialect.name == "postgresql"
    shape = SumShape(
        page.group, is_postgres=is_postgres, has_owner=bool(wanted.owner), has_txn=bool(wanted.txn), has_after=after is not None
    )  # fmt: skip
    values = {"tenant": tenant, "owner": wanted.owner, "txn": wanted.txn, "after": after, "limit": page.limit + 1}
    return shape, values


def _read_period(connection: Connection, tenant: str, wanted: CostFilter) -> CostPeriod:
    """The days of a report. Stored sums know no transactions."""
    first, last = ((day - EPOCH).days for day in (wanted.since, wanted.until))
    return CostPeriod.of(first, last) if wanted.txn else read_period(connection, tenant, first, last)


def _last_key(connection: Connection, shape: SumShape, values: Values, period: CostPeriod) -> str | None:
    """Returns a key up to which there are enough groups for a page, so that no later one is added up; None where no day has that many."""
    if shape.group in (CostGroup.DAY, CostGroup.TENANT):
        return None
    for day in period.days[-SPANS_LOOKED_AT:]:
        found: str | None = connection.execute(key_after_page_query(shape), {**values, "numbers": [day]}).scalar()
        if found is not None:
            return found
    return None


def _read_groups(connection: Connection, shape: SumShape, values: Values, period: CostPeriod) -> list[tuple[list[_Sums], _Sums]]:
    """Returns of each query the groups of a page, and the sum of all groups between the bounds of the page."""
    queries: list[tuple[Select[Any], Values]] = []
    for begin, end in period.live:
        queries += [(live_page_query(shape, is_priced=is_priced), {"begin": begin, "end": end}) for is_priced in (True, False)]
    queries += [(stored_page_query(shape, level), {"numbers": each}) for level, each in period.stored() if each]
    return [_sums_of(connection, query, {**values, **more}) for query, more in queries]


def _sums_of(connection: Connection, query: "Select[Any]", values: Values) -> tuple[list[_Sums], _Sums]:
    found = connection.execute(query, values).all()
    whole = _to_sums(0, found[0][8:15]) if found else _Sums(0, NOTHING)
    return [_to_sums(row[0], row[1:8]) for row in found], whole


def _to_sums(key: Any, figures: Sequence[Any]) -> _Sums:
    return _Sums(key, Cost(*map(int, figures[:4])), *map(int, figures[4:]))


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


def read_sums(connection: Connection, tenant: str, period: Period) -> dict[SumKey, list[int]]:
    """Returns the sums of an hour or a day, of each person and of everybody, as a whole and by agent, tool and workflow."""
    sums: dict[SumKey, list[int]] = {}
    for group in (CostGroup.DAY, CostGroup.AGENT, CostGroup.TOOL, CostGroup.WORKFLOW):
        keys = (literal("") for _ in range(2)) if group is CostGroup.DAY else (priced_key(group), unpriced_key(group))
        makers = zip((priced_sums, unpriced_sums), keys, (costs.c.owner, tasks.c.owner), strict=True)
        for make_query, key, owner in makers:
            query = make_query(key, has_owner=False, has_txn=False).add_columns(owner.label("whose")).group_by("key", "whose")
            for row in connection.execute(query, {"tenant": tenant, "begin": period[0], "end": period[1]}):
                for whose in ("", row.whose):
                    known = sums.setdefault((group.value, whose, row.key), [0] * len(FIGURES))
                    sums[group.value, whose, row.key] = [one + int(more) for one, more in zip(known, row[1:8], strict=True)]
    return sums
