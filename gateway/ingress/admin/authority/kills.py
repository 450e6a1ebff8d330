"""/api/kill: an operator stops an agent, a server or a person at once, sees what is stopped, and lifts it."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from gateway.calls.revocation.kill_switch import Killing, Order
from gateway.ingress.admin.bodies import Body, read_model
from gateway.ingress.admin.demand import demand
from gateway.ingress.http.route_descriptions import takes
from gateway.registration.requests import BadRequest
from gateway.tasks.log import rfc3339
from policies.callers import Caller
from policies.delegation.kills import Kill
from policies.delegation.rulings import Act

KILL = Act("writePolicy", "Key", "kills", "policy:write", "kills", "stop")
Admitted = Callable[[Request], Awaitable[Caller]]
Allowed = Callable[[Caller, Act], Awaitable[object]]
May = Callable[[Caller, Act], bool]


class KillBody(Body):
    kind: Literal["agent", "server", "user"]
    name: str = Field(min_length=1, max_length=2048)
    reason: str = Field("", max_length=1000)
    lift: bool = False


def routes(killing: Killing, admitted: Admitted, may: May, allowed: Allowed, max_body: int) -> APIRouter:
    """Needs policy:write. `allowed` keeps a ruling and raises Refused unless it is a Grant. It rules only on callers who may not kill,
    since a kill goes on when nothing can be kept.
    """
    router = APIRouter(prefix="/api/kill", tags=["kill"])

    async def check(caller: Caller) -> None:
        if not may(caller, KILL):
            await demand(caller, allowed, KILL)

    @router.get("", name="list_kills")
    async def list_kills(caller: Annotated[Caller, Depends(admitted)]) -> JSONResponse:
        await check(caller)
        return JSONResponse({"items": [shown(kill) for kill in killing.listed(caller.principal.tenant)], "next": None})

    @router.post("", name="kill", status_code=201, openapi_extra=takes(KillBody))
    async def kill(caller: Annotated[Caller, Depends(admitted)], request: Request) -> JSONResponse:
        await check(caller)
        body = await read_model(request, KillBody, max_body)
        if "\0" in body.name + body.reason:
            raise BadRequest("name", "must be plain text")
        order = Order(body.kind, body.name, body.reason)
        if body.lift:
            return JSONResponse({**shown(await killing.lift_named(caller.principal, order)), "lifted": True})
        made, ended = await killing.kill(caller.principal, order)
        return JSONResponse({**shown(made), "ended": ended}, 201)

    @router.delete("/{kill_id}", name="lift_kill", status_code=204)
    async def lift(caller: Annotated[Caller, Depends(admitted)], kill_id: str) -> Response:
        await check(caller)
        await killing.lift(caller.principal, kill_id)
        return Response(status_code=204)

    return router


def shown(kill: Kill) -> dict[str, Any]:
    return {"id": kill.id, "kind": kill.kind, "name": kill.name, "reason": kill.reason, "by": kill.by, "at": rfc3339(kill.at)}
