"""/api/approvals: acts that wait for people, shown in full to approvers, and their votes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from gateway.calls.authorizer import RequireInPerson
from gateway.calls.consent.approval_votes import REASON_MAX, ApprovalFilter, Approvals, Vote
from gateway.ingress.admin.bodies import ApiBody, read_model
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.http.route_descriptions import describe_json_body
from policies.callers import Caller
from policies.delegation.approval import DECIDE_APPROVALS
from policies.delegation.rulings import Act, Grant

Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[Grant]]
CouldAllow = Callable[[Caller, Act], bool]
BODY_MAX = 16_384


class DecisionBody(ApiBody):
    decision: Literal["approve", "deny"]
    reason: str = Field("", max_length=REASON_MAX)


class ApprovalListQuery(BaseModel):
    state: Literal["", "pending", "approved", "denied", "used", "expired", "void"] = ""
    cursor: str = Field("", max_length=100)
    limit: int = Field(50, ge=1, le=200)


@dataclass(frozen=True, slots=True)
class ApprovalPermissions:
    """The rulings and effects of approval routes.

    `could_allow` records nothing, `authorize` records its decision. `on_decision` resumes tasks that waited.
    """

    could_allow: CouldAllow
    authorize: Authorize
    check_in_person: RequireInPerson
    on_decision: Callable[[], Awaitable[Any]]


def routes(approvals: Approvals, authenticate: Authenticate, permissions: ApprovalPermissions) -> APIRouter:
    """Returns the routes. Approvers see all approvals, other people their own, and agents those of their transaction."""
    router = APIRouter(prefix="/api/approvals", tags=["approvals"])

    def can_decide(caller: Caller) -> bool:
        return permissions.could_allow(caller, DECIDE_APPROVALS)

    @router.get("", name="list_approvals")
    async def list_approvals(
        caller: Annotated[Caller, Depends(authenticate)], query: Annotated[ApprovalListQuery, Query()]
    ) -> JSONResponse:
        owner, delegation = "" if can_decide(caller) else caller.principal.owner_key, caller.delegation
        page = ApprovalFilter(
            owner, (delegation.txn, delegation.task_id) if delegation.path else None, query.state, query.cursor, query.limit
        )
        items, more = await approvals.list_page(caller.principal.tenant, page)
        return JSONResponse({"items": items, "next": more})

    @router.get("/{approval_id}", name="show_approval")
    async def show(caller: Annotated[Caller, Depends(authenticate)], approval_id: str) -> JSONResponse:
        return JSONResponse(await approvals.find(caller, approval_id, can_decide(caller)), headers={"cache-control": "no-store"})

    @router.post("/{approval_id}/decision", name="decide_approval", openapi_extra=describe_json_body(DecisionBody))
    async def decide(caller: Annotated[Caller, Depends(authenticate)], approval_id: str, request: Request) -> JSONResponse:
        body = await read_model(request, DecisionBody, BODY_MAX)
        await permissions.check_in_person(caller, DECIDE_APPROVALS)
        await approvals.check_voter(caller, approval_id)
        grant = await require_permission(caller, permissions.authorize, DECIDE_APPROVALS)
        vote_document = await approvals.vote(caller, approval_id, Vote(body.decision == "approve", body.reason), grant.decision.id)
        await permissions.on_decision()
        return JSONResponse(vote_document)

    return router
