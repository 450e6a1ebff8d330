"""/api/subjects: one view of a subject, which needs state:read:KIND/ID, and the list of open conflicts."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from msgspec.structs import replace
from pydantic import BaseModel, Field

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.admin.demand import require_permission
from gateway.state.effects.looks import SubjectLooks
from gateway.state.effects.view import ConflictPage
from gateway.storage.paging import format_place, parse_place
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant

Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[Grant]]
LIST_CONFLICTS = replace(READ_AUDIT, verb="list-conflicts")


class ConflictQuery(BaseModel):
    conflicts: str = Field("", max_length=10)  # names the list; there is no other one
    everybody: bool = False
    cursor: str = Field("", max_length=100)
    limit: int = Field(50, ge=1, le=200)


def routes(looks: SubjectLooks, authenticate: Authenticate, authorize: Authorize) -> APIRouter:
    """Returns the routes. Names of other people are shown to callers with audit:read."""
    router = APIRouter(prefix="/api/subjects", tags=["claims"])

    @router.get("", name="list_conflicts")
    async def list_conflicts(caller: Annotated[Caller, Depends(authenticate)], query: Annotated[ConflictQuery, Query()]) -> JSONResponse:
        if query.everybody:
            await require_permission(caller, authorize, LIST_CONFLICTS)
        before = parse_place(query.cursor) if query.cursor else None
        owner = "" if query.everybody else caller.principal.owner_key
        items, last = await looks.list_conflicts(caller, ConflictPage(owner, before, query.limit))
        return JSONResponse({"items": items, "next": format_place(*last) if last is not None else None})

    @router.get("/{subject}", name="show_subject")
    async def show(caller: Annotated[Caller, Depends(authenticate)], subject: str) -> JSONResponse:
        return JSONResponse(await looks.show(caller, subject))

    return router
