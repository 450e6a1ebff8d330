"""/api/kill: the kill switch. An operator stops an agent, a server or a person at once, lists active kills, and lifts them."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from gateway.calls.revocation.kill_switch import KillOrder, KillSwitch
from gateway.ingress.admin.bodies import ApiBody, read_model
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.http.route_descriptions import describe_json_body
from gateway.registration.requests import BadRequest
from gateway.tasks.log import to_rfc3339
from policies.callers import Caller
from policies.delegation.kills import Kill
from policies.delegation.rulings import Act

USE_KILL_SWITCH = Act("writePolicy", "Key", "kills", "policy:write", "kills", "stop")
Authenticate = Callable[[Request], Awaitable[Caller]]
Authorize = Callable[[Caller, Act], Awaitable[object]]
CouldAllow = Callable[[Caller, Act], bool]


class KillBody(ApiBody):
    kind: Literal["agent", "server", "user"]
    name: str = Field(min_length=1, max_length=2048)
    reason: str = Field("", max_length=1000)
    lift: bool = False


def routes(kill_switch: KillSwitch, authenticate: Authenticate, could_allow: CouldAllow, authorize: Authorize, max_body: int) -> APIRouter:
    """Returns the routes, which need policy:write.

    `authorize` records a ruling and raises CallRefused unless it is a Grant. It is used only for callers who may not kill, since a kill
    must work when the audit can't be written.
    """
    router = APIRouter(prefix="/api/kill", tags=["kill"])

    async def check_may_stop(caller: Caller) -> None:
        if not could_allow(caller, USE_KILL_SWITCH):
            await require_permission(caller, authorize, USE_KILL_SWITCH)

    @router.get("", name="list_kills")
    async def list_kills(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        await check_may_stop(caller)
        return JSONResponse({"items": [kill_document(kill) for kill in kill_switch.list_of_tenant(caller.principal.tenant)], "next": None})

    @router.post("", name="kill", status_code=201, openapi_extra=describe_json_body(KillBody))
    async def kill(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        await check_may_stop(caller)
        body = await read_model(request, KillBody, max_body)
        if "\0" in body.name + body.reason:
            raise BadRequest("name", "must not contain NUL")
        order = KillOrder(body.kind, body.name, body.reason)
        if body.lift:
            return JSONResponse({**kill_document(await kill_switch.lift_by_name(caller.principal, order)), "lifted": True})
        made, ended = await kill_switch.kill(caller.principal, order)
        return JSONResponse({**kill_document(made), "ended": ended}, 201)

    @router.delete("/{kill_id}", name="lift_kill", status_code=204)
    async def lift(caller: Annotated[Caller, Depends(authenticate)], kill_id: str) -> Response:
        await check_may_stop(caller)
        await kill_switch.lift(caller.principal, kill_id)
        return Response(status_code=204)

    return router


def kill_document(kill: Kill) -> dict[str, Any]:
    return {"id": kill.id, "kind": kill.kind, "name": kill.name, "reason": kill.reason, "by": kill.by, "at": to_rfc3339(kill.at)}
