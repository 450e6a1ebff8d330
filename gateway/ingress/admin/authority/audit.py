"""/api/audit: the audit of a tenant, for callers with audit:read."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse

from gateway.audit.decisions import READ_AUDIT, AuditFilter, read_audit_page
from gateway.ingress.admin.demand import require_permission
from gateway.storage.database import Database
from policies.callers import Caller
from policies.delegation.rulings import Act

Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[object]]


def routes(database: Database, authenticate: Authenticate, authorize: Authorize) -> APIRouter:
    """Returns the route. `authorize` records each read in the audit, and raises CallRefused unless the ruling is a Grant."""
    router = APIRouter(prefix="/api/audit", tags=["audit"])

    @router.get("", name="list_audit")
    async def list_audit(
        caller: Annotated[Caller, Depends(authenticate)], filters: Annotated[AuditFilter, Depends(_audit_filter)]
    ) -> JSONResponse:
        await require_permission(caller, authorize, READ_AUDIT)
        items, more = await database.read(lambda connection: read_audit_page(connection, caller.principal.tenant, filters))
        return JSONResponse({"items": items, "next": more})

    return router


def _audit_filter(
    kind: str = "", txn: str = "", decision_id: str = "", cursor: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> AuditFilter:
    return AuditFilter(kind, txn, decision_id, cursor, limit)
