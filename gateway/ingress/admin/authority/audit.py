"""/api/audit: the audit of a tenant, for callers with audit:read."""

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse

from gateway.audit.decisions import READ_AUDIT, AuditFilter, read_audit_page
from gateway.ingress.admin.demand import require_permission
from gateway.storage.database import Database
from policies.callers import Caller
from policies.delegation.rulings import Act

EXPORT_AUDIT = msgspec.structs.replace(READ_AUDIT, verb="export-audit")
EXPORT_PAGE = 500  # records that are read at once
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

    @router.get("/export", name="export_audit")
    async def export(
        caller: Annotated[Caller, Depends(authenticate)], filters: Annotated[AuditFilter, Depends(_audit_filter)]
    ) -> StreamingResponse:
        """All records that match, newest first, one a line, as long as the reader reads."""
        await require_permission(caller, authorize, EXPORT_AUDIT)
        lines = _lines(database, caller.principal.tenant, filters)
        headers = {"cache-control": "no-store", "content-disposition": 'attachment; filename="audit.ndjson"'}
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)

    return router


async def _lines(database: Database, tenant: str, filters: AuditFilter) -> AsyncIterator[bytes]:
    """One record a line, as JSON, a page at a time, so that memory and each read are bounded."""
    place: str | None = filters.cursor
    while place is not None:
        page = dataclasses.replace(filters, cursor=place, limit=EXPORT_PAGE)
        items, place = await database.read(partial(read_audit_page, tenant=tenant, filters=page))
        yield b"".join(msgspec.json.encode(item) + b"\n" for item in items)


def _audit_filter(
    kind: str = "", txn: str = "", decision_id: str = "", cursor: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> AuditFilter:
    return AuditFilter(kind, txn, decision_id, cursor, limit)
