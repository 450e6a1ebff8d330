"""/api/cost: what calls have cost, as JSON or CSV, what is left of budgets, and what calls will probably cost.

A person sees the own costs and budgets; those of all people need audit:read.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from msgspec.structs import replace
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from gateway.audit.decisions import READ_AUDIT
from gateway.calls.costs.balances import Balance, BalancePage, BudgetOwner, BudgetPeriod, DayBudgets, cursor_after, read_run_balances
from gateway.calls.costs.expectations import read_expectation
from gateway.calls.costs.reports.groups import CostGroup
from gateway.calls.costs.reports.report import CostFilter, CostPage, read_costs
from gateway.calls.costs.reports.spreadsheet import write_csv
from gateway.calls.costs.reservations import day_of
from gateway.calls.limits.limit import WORKFLOW
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.http.asgi import list_header
from gateway.registration.requests import BadRequest
from gateway.storage.database import Database
from policies.callers import Caller
from policies.delegation.rulings import Act
from registry.cards.card import WORKFLOW_KIND, Family, Registration
from registry.store import UnknownName

Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[object]]
READ_COSTS = replace(READ_AUDIT, verb="read-costs")
DAYS = 30  # up to today, where a request names none
DAYS_MAX = 400
CSV_TYPE = "text/csv"
CSV_GROUPS_MAX = 10_000
CSV_HEADERS = {"Content-Disposition": 'attachment; filename="costs.csv"'}


class CostQuery(BaseModel):
    by: CostGroup = CostGroup.DAY
    since: date | None = None  # the first day, in UTC
    until: date | None = None  # the last day
    everybody: bool = False  # of all people in the tenant
    cursor: str = Field("", max_length=400)
    limit: int = Field(50, ge=1, le=200)


class BudgetQuery(BaseModel):
    period: BudgetPeriod = BudgetPeriod.DAY
    everybody: bool = False  # of all people in the tenant
    cursor: str = Field("", max_length=1000)
    limit: int = Field(50, ge=1, le=200)


class EstimateQuery(BaseModel):
    target: str = Field(min_length=1, max_length=400)  # an agent, a workflow, or SERVER.TOOL


class EstimatesRuns(Protocol):
    """gateway/workflows/administration.py."""

    async def estimate(self, entry: Registration) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class CostParts:
    """What the routes need. `find_visible` returns an entry of a family that the caller may see, or raises UnknownName.

    `now` returns microseconds since 1970.
    """

    database: Database
    currency: str
    day_budgets: DayBudgets
    find_visible: Callable[[Caller, Family, str], Registration]
    load_workflows: Callable[[], Awaitable[EstimatesRuns]]
    now: Callable[[], int]


def routes(parts: CostParts, authenticate: Authenticate, authorize: Authorize) -> APIRouter:
    """Returns the routes. An agent sees the costs of the transaction that it acts in."""
    router = APIRouter(prefix="/api/cost", tags=["cost"])

    @router.get("", name="list_costs")
    async def list_costs(
        caller: Annotated[Caller, Depends(authenticate)], query: Annotated[CostQuery, Query()], request: Request
    ) -> Response:
        """With `Accept: text/csv`: all groups after the cursor, at most CSV_GROUPS_MAX of them."""
        if query.everybody:
            await require_permission(caller, authorize, READ_COSTS)
        is_csv = (list_header(request.scope, b"accept") or "").startswith(CSV_TYPE)
        wanted, page = _filter_of(caller, query), CostPage(query.by, query.cursor, CSV_GROUPS_MAX if is_csv else query.limit)
        tenant = caller.principal.tenant
        found = await parts.database.read(lambda connection: read_costs(connection, tenant, wanted, page, parts.currency))
        if is_csv:
            return Response(write_csv(query.by.value, found["items"]), media_type=CSV_TYPE, headers=CSV_HEADERS)
        return JSONResponse(found)

    @router.get("/budgets", name="list_budgets")
    async def list_budgets(caller: Annotated[Caller, Depends(authenticate)], query: Annotated[BudgetQuery, Query()]) -> JSONResponse:
        """What is left of the budgets that count the caller's calls. An operator may ask for those of the whole tenant."""
        if query.everybody:
            await require_permission(caller, authorize, READ_COSTS)
        found = await parts.database.read(lambda connection: _read_balances(connection, parts, caller, query))
        shown, now = found[: query.limit], parts.now()
        items = [each.to_document(parts.currency, now) for each in shown if query.everybody or _is_visible(parts, caller, each)]
        return JSONResponse({"items": items, "next": cursor_after(shown) if len(found) > query.limit else None})

    @router.get("/estimate", name="estimate_cost")
    async def estimate_cost(caller: Annotated[Caller, Depends(authenticate)], query: Annotated[EstimateQuery, Query()]) -> JSONResponse:
        """What a call of an agent or tool, or a run of a workflow, will probably cost. Raises UnknownName."""
        entry, tool = _find_target(parts, caller, query.target)
        if entry.kind == WORKFLOW_KIND:
            kind, found = "workflow", await (await parts.load_workflows()).estimate(entry)
        else:
            expected = await parts.database.read(lambda connection: read_expectation(connection, entry, tool))
            kind, found = "tool" if tool else "agent", expected.to_document(parts.currency)
        return JSONResponse({"target": query.target, "kind": kind, **found})

    return router


def _find_target(parts: CostParts, caller: Caller, target: str) -> tuple[Registration, str]:
    """The agent, or the server with the tool. Raises UnknownName."""
    server, _, tool = target.partition(".")
    if not tool:
        return parts.find_visible(caller, Family.AGENT, target), ""
    entry = parts.find_visible(caller, Family.SERVER, server)
    if all(each.name != tool for each in entry.tools):
        raise UnknownName(target)
    return entry, tool


def _read_balances(connection: Connection, parts: CostParts, caller: Caller, query: BudgetQuery) -> list[Balance]:
    principal, held = caller.principal, caller.delegation
    whose = BudgetOwner(principal.tenant)
    if not query.everybody:
        whose = BudgetOwner(principal.tenant, principal.owner_key, held.actor, held.txn if held.path else "")
    page = BalancePage(query.cursor, query.limit)
    if query.period is BudgetPeriod.RUN:
        return read_run_balances(connection, whose, page)
    return parts.day_budgets.read(connection, whose, day_of(parts.now()), page)


def _is_visible(parts: CostParts, caller: Caller, balance: Balance) -> bool:
    """Whether the caller may know of the agent, server, tool or workflow that a budget is of. A run is the caller's own."""
    _, what, _, callee = balance.parts
    if balance.run_id or not callee:
        return True
    family = Family.AGENT if what.partition(":")[0] in ("agent", WORKFLOW) else Family.SERVER
    try:
        parts.find_visible(caller, family, callee.partition(".")[0])
    except UnknownName:
        return False
    return True


def _filter_of(caller: Caller, query: CostQuery) -> CostFilter:
    """Raises BadRequest."""
    until = query.until or datetime.now(UTC).date()
    since = query.since or until - timedelta(days=min(DAYS - 1, until.toordinal() - 1))
    if since > until or (until - since).days >= DAYS_MAX or until == date.max:
        raise BadRequest("since", f"must be a day at or before `until`, less than {DAYS_MAX} days earlier")
    if query.everybody:
        return CostFilter(since, until)
    return CostFilter(since, until, caller.principal.owner_key, caller.delegation.txn if caller.delegation.path else "")
