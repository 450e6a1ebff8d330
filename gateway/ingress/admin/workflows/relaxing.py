"""/api/workflows/{name}/checkpoints and …/relaxations: how people answered, and which questions are still asked. Needs policy:write."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from gateway.ingress.admin.bodies import ApiBody, read_model
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.admin.registry.access import RegistryAccess
from gateway.ingress.admin.workflows.unknown import WorkflowRoute
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.registration.requests import BadRequest
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant
from registry.cards.card import WORKFLOW_KIND, Family, Registration
from registry.store import UnknownName

Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[Grant]]
RELAX_CHECKPOINTS = Act("writePolicy", "Key", "checkpoints", "policy:write", "checkpoints", "relax")
STEP_MAX = 500  # characters of a JSON pointer
Step = Annotated[str, Query(max_length=STEP_MAX)]


class RelaxationBody(ApiBody):
    """Which questions of a step are still asked: every k-th, and those for whose input the jq expression `above` holds."""

    step: str = Field(min_length=1, max_length=STEP_MAX)
    every: int = Field(0, ge=0, le=1_000_000)
    above: str = Field("", max_length=2000)
    reason: str = Field("", max_length=1000)


class CheckpointRecords(Protocol):
    """gateway/workflows/administration.py."""

    async def checkpoint_records(self, entry: Registration) -> list[dict[str, Any]]: ...

    async def relax(self, entry: Registration, given: Any, by: str, decision_id: str) -> None: ...

    async def ask_again(self, entry: Registration, step: str, by: str, decision_id: str) -> None: ...


def routes(
    access: RegistryAccess, load: Callable[[], Awaitable[CheckpointRecords]], authorize: Authorize, authenticate: Authenticate
) -> APIRouter:
    """Returns the routes. They are about the version that new runs begin with."""
    router = APIRouter(prefix="/api/workflows/{name}", tags=["workflows"], route_class=WorkflowRoute)

    async def find(caller: Caller, name: str) -> tuple[Registration, str]:
        decision = (await require_permission(caller, authorize, RELAX_CHECKPOINTS)).decision
        entry = access.find(caller, Family.AGENT, name)
        if entry.kind != WORKFLOW_KIND:
            raise UnknownName(name)
        return entry, decision.id

    @router.get("/checkpoints", name="checkpoint_records")
    async def records(caller: Annotated[Caller, Depends(authenticate)], name: str) -> JSONResponse:
        entry, _ = await find(caller, name)
        return JSONResponse({"items": await (await load()).checkpoint_records(entry), "next": None})

    @router.post("/relaxations", name="relax_checkpoint", openapi_extra=describe_json_body(RelaxationBody))
    async def relax(caller: Annotated[Caller, Depends(authenticate)], name: str, request: Request) -> JSONResponse:
        body = await read_model(request, RelaxationBody, 1 << 16)
        if not body.every and not body.above:
            raise BadRequest("every", "and `above` are both missing; then no question would be asked any more")
        entry, decision_id = await find(caller, name)
        records = await load()
        await records.relax(entry, body, caller.principal.owner_key, decision_id)
        return JSONResponse({"items": await records.checkpoint_records(entry), "next": None})

    @router.delete("/relaxations", name="restore_checkpoint", status_code=204)
    async def ask_again(caller: Annotated[Caller, Depends(authenticate)], name: str, step: Step = "") -> Response:
        entry, decision_id = await find(caller, name)
        await (await load()).ask_again(entry, step, caller.principal.owner_key, decision_id)
        return Response(status_code=204)

    return router
