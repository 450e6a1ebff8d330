"""Queries that add up costs: of each call, and of the stored sums of hours and days.

They are made once for each shape of question, since making one takes longer than to answer it. Their parameters are `tenant`, `owner`,
`txn`, `after`, `upto`, `limit`, and `begin` and `end` in microseconds since 1970 or the `numbers` of hours or days.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, Text, bindparam, case, func, literal, select

from gateway.calls.costs.reports.groups import CostGroup
from gateway.calls.costs.reports.levels import BY_DAY, DAY_US, SumLevel
from gateway.calls.costs.reports.stored_sums import FIGURES
from gateway.calls.costs.task_costs import ENDED_BY_WORK, RUNS
from gateway.storage.paging import with_index
from gateway.storage.tables import costs, tasks

STORED_COLUMNS: Final = {  # by what stored sums are grouped; other groups add up the entries themselves
    CostGroup.PERSON: "owner",
    CostGroup.TENANT: "tenant",
    **dict.fromkeys((CostGroup.AGENT, CostGroup.TOOL, CostGroup.WORKFLOW), "name"),
}
SHAPES_MAX: Final = 256  # queries that are kept


@dataclass(frozen=True, slots=True)
class SumShape:
    """What a query of sums is like: by what it groups, with None as one sum of all, and which of its parameters it has."""

    group: CostGroup | None
    is_postgres: bool
    has_owner: bool
    has_txn: bool
    has_after: bool = False
    has_upto: bool = False

    def of_everything(self) -> "SumShape":
        """Returns the shape of the sum of all groups."""
        return replace(self, group=None, has_after=False, has_upto=False)

    def in_byte_order(self, key: ColumnElement[Any]) -> ColumnElement[Any]:
        """PostgreSQL orders texts by the database's locale, and pages need the order that Python has too: that of bytes."""
        return key.collate("C") if self.is_postgres and key.type.python_type is str else key


def in_byte_order(connection: Connection, key: ColumnElement[Any]) -> ColumnElement[Any]:
    """Returns what orders by a key as Python does: by bytes."""
    return SumShape(None, is_postgres=connection.dialect.name == "postgresql", has_owner=False, has_txn=False).in_byte_order(key)


@lru_cache(SHAPES_MAX)
def live_page_query(shape: SumShape, *, is_priced: bool) -> "Select[Any]":
    """Returns the query of a page of sums of each call that has an entry, or of each task that has none."""
    make_query, make_key = (priced_sums, priced_key) if is_priced else (unpriced_sums, unpriced_key)
    key = literal(0) if shape.group is None else make_key(shape.group)
    return _page_of(shape, make_query(key, has_owner=shape.has_owner, has_txn=shape.has_txn), key)


@lru_cache(SHAPES_MAX)
def stored_page_query(shape: SumShape, level: SumLevel) -> "Select[Any]":
    """Returns the query of a page of stored sums."""
    columns = level.sums.c
    key: ColumnElement[Any] = literal(0)
    if shape.group is CostGroup.DAY:
        key = columns[level.unit] // (DAY_US // level.length_us)
    elif shape.group is not None:
        key = columns[STORED_COLUMNS[shape.group]]
    sums = (func.sum(columns[name]) for name in FIGURES)
    return _page_of(shape, _stored_rows(shape, level).with_only_columns(key.label("key"), *sums), key)


@lru_cache(SHAPES_MAX)
def key_after_page_query(shape: SumShape) -> "Select[Any]":
    """Returns the query of the first key behind a page of the sums of one day."""
    assert shape.group is not None
    key = BY_DAY.sums.c[STORED_COLUMNS[shape.group]]
    rows = _stored_rows(shape, BY_DAY).with_only_columns(key).order_by(shape.in_byte_order(key))
    rows = rows.where(shape.in_byte_order(key) > _text("after")) if shape.has_after else rows
    return rows.offset(_number("limit")).limit(1)


def _text(name: str) -> ColumnElement[Any]:
    return bindparam(name, type_=Text())


def _number(name: str) -> ColumnElement[Any]:
    return bindparam(name, type_=BigInteger())


def _page_of(shape: SumShape, query: "Select[Any]", key: ColumnElement[Any]) -> "Select[Any]":
    """Returns the query of groups between two keys, at most `limit`, each with the sums of all groups between them."""
    make_bound = _number if shape.group is CostGroup.DAY else _text
    query = query.where(shape.in_byte_order(key) > make_bound("after")) if shape.has_after else query
    query = query.where(shape.in_byte_order(key) <= make_bound("upto")) if shape.has_upto else query
    inner = query.group_by("key").subquery()
    group, *figures = inner.c
    page = select(group, *figures, *(func.sum(each).over() for each in figures))
    return page.order_by(shape.in_byte_order(group)).limit(_number("limit"))


def priced_key(group: CostGroup) -> ColumnElement[Any]:
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


def unpriced_key(group: CostGroup) -> ColumnElement[Any]:
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


def _stored_rows(shape: SumShape, level: SumLevel) -> "Select[Any]":
    columns, group = level.sums.c, shape.group
    is_by_name = group in (CostGroup.AGENT, CostGroup.TOOL, CostGroup.WORKFLOW)
    dimension = group.value if group is not None and is_by_name else CostGroup.DAY.value
    is_within = columns[level.unit].in_(bindparam("numbers", expanding=True, type_=BigInteger()))
    query = select(level.sums).where(columns.tenant == _text("tenant"), is_within, columns.dimension == dimension)
    if shape.has_owner:
        return query.where(columns.owner == _text("owner"))
    return query.where(columns.owner != "" if group is CostGroup.PERSON else columns.owner == "")


def priced_sums(key: ColumnElement[Any], *, has_owner: bool, has_txn: bool) -> "Select[Any]":
    """The sums of all entries. An entry without an amount is one that is unpriced."""
    columns = costs.c
    sums = (func.coalesce(func.sum(columns.amount), 0), func.count(columns.amount), func.count() - func.count(columns.amount))
    quarantined = func.coalesce(func.sum(case((columns.quarantined != "", 1), else_=0)), 0)
    more = [func.coalesce(func.sum(each), 0) for each in (columns.input_tokens, columns.output_tokens, columns.charged)]
    is_within = (columns.tenant == _text("tenant"), columns.at >= _number("begin"), columns.at < _number("end"))
    query = select(key.label("key"), *sums, quarantined, *more).where(*is_within)
    query = with_index(query, costs, f"costs_{'txn' if has_txn else 'owner' if has_owner else 'at'}")
    query = query.where(columns.owner == _text("owner")) if has_owner else query
    return query.where(columns.txn == _text("txn")) if has_txn else query


def unpriced_sums(key: ColumnElement[Any], *, has_owner: bool, has_txn: bool) -> "Select[Any]":
    """How many tasks ended after work without any entry; runs have steps with their own costs."""
    columns = tasks.c
    has_entry = select(costs.c.id).where(costs.c.tenant == columns.tenant, costs.c.id == columns.id).exists()
    is_run = select(RUNS.c.id).where(RUNS.c.tenant == columns.tenant, RUNS.c.id == columns.id).exists()
    is_within = (columns.tenant == _text("tenant"), columns.updated >= _number("begin"), columns.updated < _number("end"))
    query = select(key.label("key"), literal(0), literal(0), func.count(), *(literal(0) for _ in range(4)))
    query = query.where(*is_within, columns.state.in_(ENDED_BY_WORK))
    query = query.where(columns.owner == _text("owner")) if has_owner else query
    query = query.where(columns.txn == _text("txn")) if has_txn else query
    query = with_index(query, tasks, f"tasks_{'txn' if has_txn else 'owner' if has_owner else 'updated'}")
    return query.where(~has_entry, ~is_run)
