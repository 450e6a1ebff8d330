"""/api/cost: what calls have cost, by person, agent, tool, workflow, tenant or day, as JSON or CSV, and what is left of daily budgets.

A person sees the own costs; those of all people need audit:read.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from msgspec.structs import replace
from pydantic import BaseModel, Field

from gateway.audit.decisions import READ_AUDIT
from gateway.calls.costs.report import CostFilter, CostGroup, CostPage, read_costs
from gateway.calls.costs.spreadsheet import write_csv
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.http.asgi import list_header
from gateway.registration.requests import BadRequest
from gateway.storage.database import Database
from policies.callers import Caller
from policies.delegation.rulings import Act

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


def routes(database: Database, currency: str, authenticate: Authenticate, authorize: Authorize) -> APIRouter:
    """Returns the route. An agent sees the costs of the transaction that it acts in."""
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
        found = await database.read(lambda connection: read_costs(connection, tenant, wanted, page, currency))
        if is_csv:
            return Response(write_csv(query.by.value, found["items"]), media_type=CSV_TYPE, headers=CSV_HEADERS)
        return JSONResponse(found)

    return router


def _filter_of(caller: Caller, query: CostQuery) -> CostFilter:
    """Raises BadRequest."""
    until = query.until or datetime.now(UTC).date()
    since = query.since or until - timedelta(days=min(DAYS - 1, until.toordinal() - 1))
    if since > until or (until - since).days >= DAYS_MAX or until == date.max:
        raise BadRequest("since", f"must be a day at or before `until`, less than {DAYS_MAX} days earlier")
    if query.everybody:
        return CostFilter(since, until)
    return CostFilter(since, until, caller.principal.owner_key, caller.delegation.txn if caller.delegation.path else "")
