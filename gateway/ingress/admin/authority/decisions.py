"""/api/decisions: explains a ruling to the person it was about and to callers with audit:read."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from gateway.audit.decisions import READ_AUDIT, UnknownDecision, find_decision
from gateway.storage.database import Database
from policies.callers import Caller
from policies.delegation.rulings import Act

Authenticate = Callable[[Request], Awaitable[Caller]]
CouldAllow = Callable[[Caller, Act], bool]


def routes(database: Database, authenticate: Authenticate, could_allow: CouldAllow) -> APIRouter:
    """Returns the route; `could_allow` is Authority.could_allow."""
    router = APIRouter(prefix="/api/decisions", tags=["decisions"])

    @router.get("/{decision_id}", name="show_decision")
    async def show_decision(caller: Annotated[Caller, Depends(authenticate)], decision_id: str) -> JSONResponse:
        decision = await database.read(lambda connection: find_decision(connection, caller.principal.tenant, decision_id))
        may_read = could_allow(caller, READ_AUDIT)
        if not may_read and not decision.concerns(caller.delegation):
            raise UnknownDecision
        return JSONResponse(decision.to_json(shows_all=may_read))

    return router
