"""/api/claims: takes, renews, releases and lists claims on subjects. Taking one needs state:write:KIND/ID/claims."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from msgspec.structs import replace
from pydantic import BaseModel, Field

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.admin.bodies import ApiBody, read_model
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.state.claims.claim import ALL_EFFECTS, Claim
from gateway.state.claims.operations import (
    COOL_DOWN_SECONDS_MAX,
    LEASE_SECONDS,
    LEASE_SECONDS_MAX,
    PRIORITY,
    ClaimOperations,
    ClaimOrder,
    claim_document,
)
from gateway.storage.paging import format_place, parse_place
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant

Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[Grant]]
LIST_CLAIMS = replace(READ_AUDIT, verb="list-claims")


class ClaimBody(ApiBody):
    subject: str
    effect: str = ALL_EFFECTS
    purpose: str = ""
    priority: int = PRIORITY
    seconds: int = LEASE_SECONDS
    cool_down_seconds: int = 0
    wait_seconds: int = 0


class RenewalBody(ApiBody):
    token: int = Field(ge=1)
    seconds: int = Field(LEASE_SECONDS, ge=1, le=LEASE_SECONDS_MAX)


class ReleaseQuery(BaseModel):
    token: int = Field(0, ge=0)  # no claim has the token 0
    cool_down_seconds: int | None = Field(None, ge=0, le=COOL_DOWN_SECONDS_MAX)


class ClaimQuery(BaseModel):
    subject: str = Field("", max_length=250)
    everybody: bool = False
    cursor: str = Field("", max_length=200)
    limit: int = Field(50, ge=1, le=200)


def routes(operations: ClaimOperations, authenticate: Authenticate, authorize: Authorize, max_body: int) -> APIRouter:
    """Returns the routes. The holder of a claim is the caller: the person, or an agent in its task."""
    router = APIRouter(prefix="/api/claims", tags=["claims"])

    @router.post("", name="take_claim", status_code=201, openapi_extra=describe_json_body(ClaimBody))
    async def take(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        body = await read_model(request, ClaimBody, max_body)
        claim = await operations.take(caller, msgspec.convert(body.model_dump(), ClaimOrder))
        return JSONResponse(claim_document(claim, claim.created), 201)

    @router.get("", name="list_claims")
    async def list_claims(caller: Annotated[Caller, Depends(authenticate)], query: Annotated[ClaimQuery, Query()]) -> JSONResponse:
        found, now = await _list(caller, query)
        following = format_place(found[-1].created, found[-1].id) if len(found) == query.limit else None
        return JSONResponse({"items": [claim_document(claim, now) for claim in found], "next": following})

    async def _list(caller: Caller, query: ClaimQuery) -> tuple[list[Claim], int]:
        before = parse_place(query.cursor) if query.cursor else None
        if query.subject:
            return await operations.list_on(caller, query.subject, before, query.limit)
        if query.everybody:
            await require_permission(caller, authorize, LIST_CLAIMS)
            return await operations.list_all(caller, before, query.limit)
        return await operations.list_own(caller, before, query.limit)

    @router.put("/{claim_id}", name="renew_claim", openapi_extra=describe_json_body(RenewalBody))
    async def renew(caller: Annotated[Caller, Depends(authenticate)], claim_id: str, request: Request) -> JSONResponse:
        body = await read_model(request, RenewalBody, max_body)
        claim = await operations.renew(caller, claim_id, body.token, body.seconds)
        return JSONResponse(claim_document(claim, claim.created))

    @router.delete("/{claim_id}", name="release_claim")
    async def release(
        caller: Annotated[Caller, Depends(authenticate)], claim_id: str, query: Annotated[ReleaseQuery, Query()]
    ) -> JSONResponse:
        claim = await operations.release(caller, claim_id, query.token, query.cool_down_seconds)
        return JSONResponse(claim_document(claim, claim.until))

    return router
