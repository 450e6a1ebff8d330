"""/api/audit: the trail of a tenant, for those who may read it."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from gateway.audit.decisions import READ_AUDIT, Wanted, read_trail
from gateway.ingress.admin.demand import demand
from gateway.storage.database import Database
from policies.callers import Caller
from policies.delegation.rulings import Act

Admitted = Callable[[Request], Awaitable[Caller]]
Allowed = Callable[[Caller, Act], Awaitable[object]]


def routes(database: Database, admitted: Admitted, allowed: Allowed) -> APIRouter:
    """`allowed` keeps a ruling and raises Refused unless it is a Grant: who reads the trail stands in it."""
    router = APIRouter(prefix="/api/audit", tags=["audit"])

    @router.get("", name="list_audit")
    async def list_audit(caller: Annotated[Caller, Depends(admitted)], wanted: Annotated[Wanted, Depends(_wanted)]) -> JSONResponse:
        await demand(caller, allowed, READ_AUDIT)
        items, more = await database.read(lambda connection: read_trail(connection, caller.principal.tenant, wanted))
        return JSONResponse({"items": items, "next": more})

    return router


def _wanted(
    kind: str = "", txn: str = "", decision_id: str = "", cursor: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> Wanted:
    return Wanted(kind, txn, decision_id, cursor, limit)
