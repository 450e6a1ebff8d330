"""/api/approvals: what waits for people, shown exactly to those who decide, and their decisions."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from gateway.calls.authorizer import InPerson
from gateway.calls.consent.approval_votes import REASON_MAX, Approvals, Page, Vote
from gateway.ingress.admin.bodies import Body, read_model
from gateway.ingress.admin.demand import demand
from gateway.ingress.http.route_descriptions import takes
from policies.callers import Caller
from policies.delegation.approval import DECIDE
from policies.delegation.rulings import Act, Grant

Admitted = Callable[[Request], Awaitable[Caller]]
Allowed = Callable[[Caller, Act], Awaitable[Grant]]
May = Callable[[Caller, Act], bool]
BODY_MAX = 16_384


class DecisionBody(Body):
    decision: Literal["approve", "deny"]
    reason: str = Field("", max_length=REASON_MAX)


class Sought(BaseModel):
    state: Literal["", "pending", "approved", "denied", "used", "expired", "void"] = ""
    cursor: str = Field("", max_length=100)
    limit: int = Field(50, ge=1, le=200)


@dataclass(frozen=True, slots=True)
class Deciding:
    """Who rules on whom: `may` leaves no trace, `allowed` keeps its decision. `decided` lets tasks go on that waited."""

    may: May
    allowed: Allowed
    check_in_person: InPerson
    decided: Callable[[], Awaitable[Any]]


def routes(approvals: Approvals, admitted: Admitted, deciding: Deciding) -> APIRouter:
    """Who may decide sees everything, other people what they asked for, agents what their errand waits for."""
    router = APIRouter(prefix="/api/approvals", tags=["approvals"])

    def decides(caller: Caller) -> bool:
        return deciding.may(caller, DECIDE)

    @router.get("", name="list_approvals")
    async def list_approvals(caller: Annotated[Caller, Depends(admitted)], sought: Annotated[Sought, Query()]) -> JSONResponse:
        owner, mine = "" if decides(caller) else caller.principal.owner, caller.delegation
        page = Page(owner, (mine.txn, mine.task_id) if mine.path else None, sought.state, sought.cursor, sought.limit)
        items, more = await approvals.page(caller.principal.tenant, page)
        return JSONResponse({"items": items, "next": more})

    @router.get("/{approval_id}", name="show_approval")
    async def show(caller: Annotated[Caller, Depends(admitted)], approval_id: str) -> JSONResponse:
        return JSONResponse(await approvals.find(caller, approval_id, decides(caller)), headers={"cache-control": "no-store"})

    @router.post("/{approval_id}/decision", name="decide_approval", openapi_extra=takes(DecisionBody))
    async def decide(caller: Annotated[Caller, Depends(admitted)], approval_id: str, request: Request) -> JSONResponse:
        body = await read_model(request, DecisionBody, BODY_MAX)
        await deciding.check_in_person(caller, DECIDE)
        await approvals.check_voter(caller, approval_id)
        grant = await demand(caller, deciding.allowed, DECIDE)
        told = await approvals.vote(caller, approval_id, Vote(body.decision == "approve", body.reason), grant.decision.id)
        await deciding.decided()
        return JSONResponse(told)

    return router
