"""/api/audit: the audit of a tenant, for callers with audit:read."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse

from gateway.audit.decisions import READ_AUDIT, AuditFilter, read_audit_page
from gateway.concurrency.first_item import read_first
from gateway.ingress.admin.demand import require_permission
from gateway.storage.database import Database
from policies.audit.heads import StatementVerifier
from policies.audit.proof import Proof, read_newest_rows, verify_chains
from policies.callers import Caller
from policies.delegation.rulings import Act

EXPORT_AUDIT = msgspec.structs.replace(READ_AUDIT, verb="export-audit")
VERIFY_AUDIT = msgspec.structs.replace(READ_AUDIT, verb="verify-audit")
FLAWS_MAX = 50  # that are listed
EXPORT_PAGE = 500  # records that are read at once
Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[object]]


ReadHeads = Callable[[], Sequence[str]]  # the signed heads that this gateway has kept


@dataclasses.dataclass(frozen=True, slots=True)
class AuditVerifier:
    """Verifies the newest records of all tenants, as `interlock audit verify` verifies all of them. One at a time."""

    database: Database
    read_heads: ReadHeads
    keys: StatementVerifier
    busy: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)

    async def verify(self) -> Proof:
        """Reads the heads before the rows, so that each names a durable record, and again afterwards for new chains."""
        async with self.busy:
            heads = await asyncio.to_thread(self.read_heads)
            rows, is_complete = await self.database.read(read_newest_rows)
            later = await asyncio.to_thread(self.read_heads)
            check = partial(verify_chains, rows, heads, self.keys, later, is_complete=is_complete)
            return await asyncio.to_thread(check)


def routes(database: Database, authenticate: Authenticate, authorize: Authorize, verifier: AuditVerifier) -> APIRouter:
    """Returns the routes. `authorize` records each read in the audit, and raises CallRefused unless the ruling is a Grant."""
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
        lines = await read_first(_lines(database, caller.principal.tenant, filters))
        headers = {"cache-control": "no-store", "content-disposition": 'attachment; filename="audit.ndjson"'}
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)

    @router.get("/verification", name="verify_audit")
    async def verify(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        """Whether the newest records, of at most 2,000, were edited, deleted or reordered. It names records, and shows none."""
        await require_permission(caller, authorize, VERIFY_AUDIT)
        return JSONResponse(_proof_document(await verifier.verify()))

    return router


def _proof_document(proof: Proof) -> dict[str, Any]:
    counts = {name: getattr(proof, name) for name in ("records", "chains", "heads", "cuts", "unwitnessed")}
    flaws = [dataclasses.asdict(flaw) for flaw in proof.flaws[:FLAWS_MAX]]
    return {"sound": proof.is_sound, "complete": proof.is_complete, **counts, "flaws": flaws, "flaw_count": len(proof.flaws)}


async def _lines(database: Database, tenant: str, filters: AuditFilter) -> AsyncIterator[bytes]:
    """One record a line, as JSON, a page at a time, so that memory and each read are bounded."""
    place: str | None = filters.cursor
    while place is not None:
        page = dataclasses.replace(filters, cursor=place, limit=EXPORT_PAGE)
        items, place = await database.read(partial(read_audit_page, tenant=tenant, filters=page))
        yield b"".join(msgspec.json.encode(item) + b"\n" for item in items)


def _audit_filter(
    kind: str = "",
    txn: str = "",
    decision_id: str = "",
    cursor: str = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    *,
    person: Annotated[str, Query(max_length=2000)] = "",
) -> AuditFilter:
    return AuditFilter(kind, txn, decision_id, cursor, limit, person)
