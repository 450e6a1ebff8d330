"""/api/retention and /api/holds: what is due for deletion, its deletion in steps, and the legal holds that exempt from it."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from gateway.audit.retention.holds import Hold, LegalHolds
from gateway.audit.retention.pruner import Retention
from gateway.audit.retention.terms import TermsTooShort
from gateway.ingress.admin.bodies import ApiBody, read_model
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.registration.requests import BadRequest
from gateway.tasks.log import to_rfc3339
from policies.callers import Caller
from policies.delegation.rulings import Act

USE_RETENTION = Act("writePolicy", "Key", "retention", "policy:write", "retention", "prune")
USE_HOLDS = Act("writePolicy", "Key", "holds", "policy:write", "holds", "hold")
STEP_SECONDS = 2.0  # of one request, so that its caller sees progress and can stop
Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[object]]
ResolvePerson = Callable[[str, str], Awaitable[str]]


class PruneBody(ApiBody):
    """Without terms, those of the settings count. With terms, nothing younger than `retention.min_days` is deleted."""

    days: int | None = Field(None, ge=1, le=36_500)
    tasks: int | None = Field(None, ge=1, le=10**12)
    dry_run: bool = False


class HoldBody(ApiBody):
    """`name` is a person's subject or tenant|issuer|subject, or a task's id; empty for the whole tenant."""

    kind: Literal["tenant", "person", "task"]
    name: str = Field("", max_length=2048)
    reason: str = Field("", max_length=1000)


class RetentionParts(NamedTuple):
    """What the routes use. `resolve_person` returns a person of a tenant as tenant|issuer|subject, and raises AmbiguousPerson."""

    pruner: Retention
    holds: LegalHolds
    resolve_person: ResolvePerson


def prune_routes(parts: RetentionParts, authenticate: Authenticate, authorize: Authorize, max_body: int) -> APIRouter:
    """Returns the route, which needs policy:write. `authorize` records the ruling and raises CallRefused unless it is a Grant."""
    router = APIRouter(prefix="/api/retention", tags=["retention"])

    @router.post("/prune", name="prune_tasks", openapi_extra=describe_json_body(PruneBody))
    async def prune(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        """Deletes for about two seconds what is due in the caller's tenant. `complete` is false where a further request would go on."""
        await require_permission(caller, authorize, USE_RETENTION)
        body = await read_model(request, PruneBody, max_body)
        tenant = caller.principal.tenant
        try:
            terms = parts.pruner.terms_for_request(tenant, body.days, body.tasks)
        except TermsTooShort as error:
            raise BadRequest("days", str(error)) from error
        if body.dry_run:
            due = await parts.pruner.find_due(tenant, terms)
            before = None if due.cutoff is None else to_rfc3339(due.cutoff)
            return JSONResponse({"before": before, "tasks": due.tasks, "records": due.records, "dry_run": True})
        pruned = await parts.pruner.prune(tenant, terms, seconds=STEP_SECONDS)
        return JSONResponse({"tasks": pruned.tasks, "records": pruned.records, "complete": pruned.is_complete, "dry_run": False})

    return router


def hold_routes(parts: RetentionParts, authenticate: Authenticate, authorize: Authorize, max_body: int) -> APIRouter:
    """Returns the routes, which need policy:write. `authorize` records the ruling and raises CallRefused unless it is a Grant."""
    router = APIRouter(prefix="/api/holds", tags=["retention"])

    @router.get("", name="list_holds")
    async def list_holds(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        await require_permission(caller, authorize, USE_HOLDS)
        holds = await parts.holds.list_of_tenant(caller.principal.tenant)
        return JSONResponse({"items": [_hold_document(hold) for hold in holds], "next": None})

    @router.post("", name="place_hold", status_code=201, openapi_extra=describe_json_body(HoldBody))
    async def place_hold(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        await require_permission(caller, authorize, USE_HOLDS)
        body = await read_model(request, HoldBody, max_body)
        if (body.kind == "tenant") != (not body.name):
            raise BadRequest("name", "names the person or the task, and is empty for the tenant")
        name = await parts.resolve_person(caller.principal.tenant, body.name) if body.kind == "person" else body.name
        return JSONResponse(_hold_document(await parts.holds.place(caller.principal, body.kind, name, body.reason)), 201)

    @router.delete("/{hold_id}", name="release_hold", status_code=204)
    async def release_hold(caller: Annotated[Caller, Depends(authenticate)], hold_id: str) -> Response:
        await require_permission(caller, authorize, USE_HOLDS)
        await parts.holds.release(caller.principal, hold_id)
        return Response(status_code=204)

    return router


def _hold_document(hold: Hold) -> dict[str, Any]:
    target = {"kind": hold.kind, "name": hold.name}
    return {"id": hold.id, **target, "reason": hold.reason, "by": hold.placed_by, "at": to_rfc3339(hold.placed_at)}
