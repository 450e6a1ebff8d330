"""/api/decisions: explains rulings to the person they were about and to callers with audit:read, and lists refusals."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from gateway.audit.decisions import READ_AUDIT, RefusalFilter, UnknownDecision, find_decision, read_refusals
from gateway.ingress.admin.demand import require_permission
from gateway.storage.database import Database
from policies.callers import Caller
from policies.delegation.rulings import Act

Authenticate = Callable[[Request], Awaitable[Caller]]
CouldAllow = Callable[[Caller, Act], bool]
Authorize = Callable[[Caller, Act], Awaitable[object]]


class RefusalQuery(BaseModel):
    everybody: bool = False  # of all people in the tenant
    cursor: str = Field("", max_length=200)
    limit: int = Field(50, ge=1, le=200)


def routes(database: Database, authenticate: Authenticate, could_allow: CouldAllow, authorize: Authorize) -> APIRouter:
    """Returns the routes. `could_allow` is Authority.could_allow; `authorize` records the look at refusals of the whole tenant."""
    router = APIRouter(prefix="/api/decisions", tags=["decisions"])

    @router.get("", name="list_refusals")
    async def list_refusals(caller: Annotated[Caller, Depends(authenticate)], query: Annotated[RefusalQuery, Query()]) -> JSONResponse:
        """Decisions that refused an act of the caller, newest first; an agent sees those of its own transaction."""
        if query.everybody:
            await require_permission(caller, authorize, READ_AUDIT)
        person = caller.principal
        wanted = RefusalFilter("" if query.everybody else person.owner_key, query.cursor, query.limit)
        found, more = await database.read(lambda connection: read_refusals(connection, person.tenant, wanted))
        shown = [each for each in found if query.everybody or each.concerns(caller.delegation)]
        return JSONResponse({"items": [each.to_json(shows_all=query.everybody) for each in shown], "next": more})

    @router.get("/{decision_id}", name="show_decision")
    async def show_decision(caller: Annotated[Caller, Depends(authenticate)], decision_id: str) -> JSONResponse:
        decision = await database.read(lambda connection: find_decision(connection, caller.principal.tenant, decision_id))
        may_read = could_allow(caller, READ_AUDIT)
        if not may_read and not decision.concerns(caller.delegation):
            raise UnknownDecision
        return JSONResponse(decision.to_json(shows_all=may_read))

    return router
