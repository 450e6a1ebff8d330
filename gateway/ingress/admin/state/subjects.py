"""/api/subjects: one view of a subject, which needs state:read:KIND/ID, and the list of open conflicts."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from msgspec.structs import replace
from pydantic import BaseModel, Field

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.admin.demand import require_permission
from gateway.registration.requests import BadRequest
from gateway.state.subjects.clock import SubjectClock
from gateway.state.subjects.names import BadSubject, check_subject, key_prefix_of
from gateway.state.subjects.view import ConflictPage, Reader, list_open_conflicts, read_subject
from gateway.storage.database import Database
from gateway.storage.paging import BadCursor
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant

Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[Grant]]
CouldAllow = Callable[[Caller, Act], bool]
LIST_CONFLICTS = replace(READ_AUDIT, verb="list-conflicts")


class ConflictQuery(BaseModel):
    conflicts: str = Field("", max_length=10)  # names the list; there is no other one
    everybody: bool = False
    cursor: str = Field("", max_length=20)
    limit: int = Field(50, ge=1, le=200)


def routes(
    database: Database, clock: SubjectClock, authenticate: Authenticate, could_allow: CouldAllow, *, authorize: Authorize
) -> APIRouter:
    """Returns the routes. Names of other people are shown to callers with audit:read."""
    router = APIRouter(prefix="/api/subjects", tags=["claims"])

    @router.get("", name="list_conflicts")
    async def list_conflicts(caller: Annotated[Caller, Depends(authenticate)], query: Annotated[ConflictQuery, Query()]) -> JSONResponse:
        if query.everybody:
            await require_permission(caller, authorize, LIST_CONFLICTS)
        reader = Reader(caller.principal.tenant, caller.principal.owner_key, query.everybody)
        page = ConflictPage("" if query.everybody else reader.owner, _parse_place(query.cursor), query.limit)
        items = await database.read(lambda connection: list_open_conflicts(connection, reader, page, clock))
        places = [item.pop("place") for item in items]
        return JSONResponse({"items": items, "next": str(places[-1]) if len(places) == query.limit else None})

    @router.get("/{subject}", name="show_subject")
    async def show(caller: Annotated[Caller, Depends(authenticate)], subject: str) -> JSONResponse:
        try:
            name = check_subject(subject)
        except BadSubject as error:
            raise BadRequest("subject", str(error)) from error
        await require_permission(caller, authorize, act_of_reading_subject(name))
        reader = Reader(caller.principal.tenant, caller.principal.owner_key, could_allow(caller, READ_AUDIT))
        view = await database.read(lambda connection: read_subject(connection, reader, name, clock))
        view["conflicts"] = [{key: value for key, value in each.items() if key != "place"} for each in view["conflicts"]]
        return JSONResponse(view)

    return router


def act_of_reading_subject(subject: str) -> Act:
    """The act of reading all that is known of a subject."""
    name = key_prefix_of(subject).removesuffix("/")
    return Act("readState", "Key", name, f"state:read:{name}", name)


def _parse_place(cursor: str) -> int | None:
    """Raises BadCursor."""
    if not cursor:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
        raise BadCursor
    return int(cursor)
