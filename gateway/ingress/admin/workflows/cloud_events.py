"""/api/events: takes CloudEvents 1.0, one or a batch, for the workflows of the tenant. Sending one needs state:write:events/TYPE."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from gateway.calls.authorizer import RequireInPerson
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.http.asgi import read_body
from gateway.ingress.http.route_descriptions import describe_object_body
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant
from policies.strict_json import LARGE, parse, run_off_loop

Authenticate = Callable[[Request], Awaitable[Caller]]
# An agent sends events by a workflow's step, under the rights of a run, and never through /api.
SEND_EVENTS = Act("sendEvent", "Key", "events", "state:write:events/*", "events")
DESCRIPTION = "An event in the structured form of CloudEvents 1.0, or an array of at most 100."


class Events(Protocol):
    """gateway/workflows/administration.py."""

    def parse_events(self, document: Any) -> tuple[list[dict[str, Any]], list[Act]]: ...

    async def publish(self, tenant: str, sender: str, events: list[dict[str, Any]]) -> int: ...


def routes(
    load: Callable[[], Awaitable[Events]],
    authenticate: Authenticate,
    authorize: Callable[[Caller, Act], Awaitable[Grant]],
    check_in_person: RequireInPerson,
    max_body: int,
) -> APIRouter:
    """Returns the routes of events."""
    router = APIRouter(prefix="/api/events", tags=["workflows"])

    @router.post("", name="send_events", status_code=202, openapi_extra=describe_object_body(DESCRIPTION))
    async def send(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        raw = await read_body(request.scope, request.receive, max_body)
        await check_in_person(caller, SEND_EVENTS)
        document = await run_off_loop(parse, raw) if len(raw) > LARGE else parse(raw)
        events = await load()
        found, acts = events.parse_events(document)
        for act in acts:
            await require_permission(caller, authorize, act)
        new = await events.publish(caller.principal.tenant, caller.principal.owner_key, found)
        return JSONResponse({"accepted": len(found), "repeated": len(found) - new}, 202)

    return router
