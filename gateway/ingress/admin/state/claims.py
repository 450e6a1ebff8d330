"""/api/claims: takes, renews, releases and lists claims on subjects. Taking one needs state:write:KIND/ID/claims."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from msgspec.structs import replace
from pydantic import BaseModel, Field

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.admin.bodies import ApiBody, read_model
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.registration.requests import BadRequest
from gateway.state.claims.claim import ALL_EFFECTS, PRIORITY_MAX, Claim, ClaimRequest, Holder
from gateway.state.claims.store import SECOND, ClaimPage, SubjectClaims
from gateway.state.subjects.names import BadSubject, check_effect, check_subject, key_prefix_of
from gateway.storage.paging import format_place, parse_place
from gateway.tasks.log import to_rfc3339
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant

Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[Grant]]
CouldAllow = Callable[[Caller, Act], bool]
LIST_CLAIMS = replace(READ_AUDIT, verb="list-claims")
LEASE_SECONDS: Final = 600
LEASE_SECONDS_MAX: Final = 86_400
COOL_DOWN_SECONDS_MAX: Final = 366 * 86_400
WAIT_SECONDS_MAX: Final = 60
PRIORITY: Final = 100
ORDINARY_PRIORITY_MAX: Final = 500  # a claim of a higher priority needs state:write:KIND/ID/claims/urgent
PURPOSE_MAX: Final = 200


class ClaimBody(ApiBody):
    subject: str = Field(max_length=250)
    effect: str = Field(ALL_EFFECTS, max_length=100)
    purpose: str = Field("", max_length=PURPOSE_MAX)
    priority: int = Field(PRIORITY, ge=0, le=PRIORITY_MAX)
    seconds: int = Field(LEASE_SECONDS, ge=1, le=LEASE_SECONDS_MAX)
    cool_down_seconds: int = Field(0, ge=0, le=COOL_DOWN_SECONDS_MAX)
    wait_seconds: int = Field(0, ge=0, le=WAIT_SECONDS_MAX)


class RenewalBody(ApiBody):
    token: int = Field(ge=1)
    seconds: int = Field(LEASE_SECONDS, ge=1, le=LEASE_SECONDS_MAX)


class ReleaseQuery(BaseModel):
    token: int = Field(ge=1)
    cool_down_seconds: int | None = Field(None, ge=0, le=COOL_DOWN_SECONDS_MAX)


class ClaimQuery(BaseModel):
    subject: str = Field("", max_length=250)
    everybody: bool = False
    cursor: str = Field("", max_length=200)
    limit: int = Field(50, ge=1, le=200)


def routes(claims: SubjectClaims, authenticate: Authenticate, could_allow: CouldAllow, authorize: Authorize, max_body: int) -> APIRouter:
    """Returns the routes. The holder of a claim is the caller: the person, or an agent in its task."""
    router = APIRouter(prefix="/api/claims", tags=["claims"])

    @router.post("", name="take_claim", status_code=201, openapi_extra=describe_json_body(ClaimBody))
    async def take(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        body = await read_model(request, ClaimBody, max_body)
        wanted = _request_of(caller, body)
        grant = await require_permission(caller, authorize, act_of_claiming(wanted))
        may_read = could_allow(caller, act_of_reading_claims(wanted.subject))
        wanted = replace(wanted, decision_id=grant.decision.id)
        claim = await claims.take(wanted, body.wait_seconds, lambda other: describe_holder(other, caller, may_read))
        return JSONResponse(claim_document(claim, claim.created, with_holder=True), 201)

    @router.get("", name="list_claims")
    async def list_claims(caller: Annotated[Caller, Depends(authenticate)], query: Annotated[ClaimQuery, Query()]) -> JSONResponse:
        page = await _page_of(caller, query)
        found, now = await claims.list_open(caller.principal.tenant, page)
        items = [claim_document(claim, now, with_holder=True) for claim in found]
        following = format_place(found[-1].created, found[-1].id) if len(found) == query.limit else None
        return JSONResponse({"items": items, "next": following})

    async def _page_of(caller: Caller, query: ClaimQuery) -> ClaimPage:
        """Those of others are for callers who may read the subject's claims, and those on all subjects for audit:read."""
        before = parse_place(query.cursor) if query.cursor else None
        own = ClaimPage(caller.principal.owner_key, "", before, query.limit)
        if query.subject:
            subject = _checked_subject(query.subject)
            may_read = could_allow(caller, act_of_reading_claims(subject))
            return ClaimPage("" if may_read else own.owner, subject, before, query.limit)
        if query.everybody:
            await require_permission(caller, authorize, LIST_CLAIMS)
            return ClaimPage("", "", before, query.limit)
        return own

    @router.put("/{claim_id}", name="renew_claim", openapi_extra=describe_json_body(RenewalBody))
    async def renew(caller: Annotated[Caller, Depends(authenticate)], claim_id: str, request: Request) -> JSONResponse:
        body = await read_model(request, RenewalBody, max_body)
        found = await claims.find(caller.principal.tenant, claim_id)
        await require_permission(caller, authorize, act_of_claiming(found, "renew-claim"))
        claim = await claims.renew(caller.principal.tenant, claim_id, holder_of(caller), body.token, body.seconds * SECOND)
        return JSONResponse(claim_document(claim, claim.created, with_holder=True))

    @router.delete("/{claim_id}", name="release_claim")
    async def release(
        caller: Annotated[Caller, Depends(authenticate)], claim_id: str, query: Annotated[ReleaseQuery, Query()]
    ) -> JSONResponse:
        cool_down = None if query.cool_down_seconds is None else query.cool_down_seconds * SECOND
        claim = await claims.release(caller.principal.tenant, claim_id, holder_of(caller), query.token, cool_down)
        return JSONResponse(claim_document(claim, claim.until, with_holder=True))

    return router


def holder_of(caller: Caller) -> Holder:
    """Who holds what the caller claims."""
    delegation = caller.delegation
    return Holder(caller.principal.owner_key, tuple(hop.agent for hop in delegation.path), delegation.task_id, delegation.txn)


def act_of_claiming(wanted: ClaimRequest | Claim, verb: str = "take-claim") -> Act:
    """The act of claiming a subject. High priorities have a permission of their own, since such a claim ends those of others."""
    urgent = "/urgent" if wanted.priority > ORDINARY_PRIORITY_MAX else ""
    name = f"{key_prefix_of(wanted.subject)}claims{urgent}"
    return Act("writeState", "Key", name, f"state:write:{name}", name, verb)


def act_of_reading_claims(subject: str) -> Act:
    """The act of reading who has claimed a subject."""
    name = f"{key_prefix_of(subject)}claims"
    return Act("readState", "Key", name, f"state:read:{name}", name)


def describe_holder(claim: Claim, caller: Caller, may_read: bool) -> str:
    """The holder in words: by name for the same person and for callers who may read the subject's claims."""
    holder = claim.holder
    if holder.owner == caller.principal.owner_key:
        return f"Your agent {holder.agent}" if holder.agent else "You"
    if not may_read:
        return "Another person's agent" if holder.agent else "Another person"
    person = holder.owner.split("|", 2)[-1]
    return f"{person}'s agent {holder.agent}" if holder.agent else person


def _request_of(caller: Caller, body: ClaimBody) -> ClaimRequest:
    """Raises BadRequest."""
    if not body.purpose.isprintable():
        raise BadRequest("purpose", "must be one line of text")
    try:
        effect = check_effect(body.effect)
    except BadSubject as error:
        raise BadRequest("effect", str(error)) from error
    lease, cool_down = body.seconds * SECOND, body.cool_down_seconds * SECOND
    subject = _checked_subject(body.subject)
    return ClaimRequest(caller.principal.tenant, subject, effect, holder_of(caller), body.purpose, body.priority, lease, cool_down)


def _checked_subject(text: str) -> str:
    """Raises BadRequest."""
    try:
        return check_subject(text)
    except BadSubject as error:
        raise BadRequest("subject", str(error)) from error


def claim_document(claim: Claim, now: int, *, with_holder: bool) -> dict[str, Any]:
    """A claim as JSON. Without its holder it says for what it is and when it ends."""
    state = "held" if claim.is_held(now) else "cooling" if claim.is_cooling(now) else "ended"
    holder = claim.holder
    shown = {"owner": holder.owner, "agent": holder.agent, "chain": list(holder.chain), "task_id": holder.task_id}
    return {
        "id": claim.id,
        "subject": claim.subject,
        "effect": claim.effect,
        "purpose": claim.purpose,
        "priority": claim.priority,
        "state": state,
        "token": claim.token if with_holder else None,
        "created": to_rfc3339(claim.created),
        "until": to_rfc3339(claim.until),
        "cool_down_until": to_rfc3339(claim.free_at) if claim.cool_down else None,
        "holder": shown if with_holder else None,
    }
