"""/api/events and /api/triggers: takes CloudEvents 1.0 for the workflows of the tenant, shows them, and what they start.

Sending an event needs state:write:events/TYPE, seeing it state:read:events/TYPE. Only people do either.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from gateway.calls.authorizer import RequireInPerson
from gateway.calls.limits.open_streams import OpenStreams
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.admin.registry.access import RegistryAccess
from gateway.ingress.admin.workflows.events import STREAM_HEADERS, sse_lines
from gateway.ingress.http.asgi import header, list_header, read_body
from gateway.ingress.http.route_descriptions import describe_object_body
from gateway.storage.paging import BadCursor
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant
from policies.strict_json import LARGE, parse, run_off_loop
from registry.cards.card import WORKFLOW_KIND, Family

Authenticate = Callable[[Request], Awaitable[Caller]]
# An agent sends and receives events by steps of workflows, under the rights of a run, and never through /api.
SEND_EVENTS = Act("sendEvent", "Key", "events", "state:write:events/*", "events")
SEE_EVENTS = Act("readState", "Key", "events", "state:read:events/*", "events")
DESCRIPTION = "An event in the structured form of CloudEvents 1.0, or an array of at most 100."
ONE_EVENT = "An event in the structured form of CloudEvents 1.0. Nothing is stored or started."


class NotStarted(Protocol):
    """An event that started no run of a workflow, since too many of its runs wait for their start."""

    @property
    def workflow(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def id(self) -> str: ...


class Published(Protocol):
    """What became of the events of a request."""

    @property
    def new(self) -> int: ...

    @property
    def not_started(self) -> Sequence[NotStarted]: ...


class Events(Protocol):
    """gateway/workflows/event_operations.py."""

    def parse_events(self, document: Any) -> tuple[list[dict[str, Any]], list[Act]]: ...

    async def publish(self, tenant: str, sender: str, events: list[dict[str, Any]]) -> Published: ...

    async def list_events(
        self, tenant: str, before: int | None, limit: int, *, kind: str, may_see: Callable[[Act], bool]
    ) -> tuple[list[dict[str, Any]], int | None]: ...

    def follow(
        self, tenant: str, after: int | None, *, kind: str, may_see: Callable[[Act], bool]
    ) -> AsyncIterator[list[dict[str, Any]]]: ...

    async def triggers(self, tenant: str, names: Collection[str]) -> list[dict[str, Any]]: ...

    async def test(self, tenant: str, document: Any, names: Collection[str]) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class EventPermissions:
    """The rulings that routes of events need."""

    could_allow: Callable[[Caller, Act], bool]
    authorize: Callable[[Caller, Act], Awaitable[Grant]]
    check_in_person: RequireInPerson


def event_routes(
    load: Callable[[], Awaitable[Events]],
    authenticate: Authenticate,
    permissions: EventPermissions,
    open_streams: OpenStreams,
    max_body: int,
) -> APIRouter:
    """Returns the routes of events."""
    router = APIRouter(prefix="/api/events", tags=["workflows"])

    @router.post("", name="send_events", status_code=202, openapi_extra=describe_object_body(DESCRIPTION))
    async def send(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        await permissions.check_in_person(caller, SEND_EVENTS)
        document = await _read_json(request, max_body)
        events = await load()
        found, acts = events.parse_events(document)
        for act in acts:
            await require_permission(caller, permissions.authorize, act)
        published = await events.publish(caller.principal.tenant, caller.principal.owner_key, found)
        not_started = [{"workflow": each.workflow, "source": each.source, "id": each.id} for each in published.not_started]
        return JSONResponse({"accepted": len(found), "repeated": len(found) - published.new, "not_started": not_started}, 202)

    @router.get("", name="list_events")
    async def list_all(
        caller: Annotated[Caller, Depends(authenticate)],
        request: Request,
        type: Annotated[str, Query(max_length=200)] = "",
        cursor: str = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Response:
        await permissions.check_in_person(caller, SEE_EVENTS)
        events, tenant, may_see = await load(), caller.principal.tenant, partial(permissions.could_allow, caller)
        if "text/event-stream" not in (list_header(request.scope, b"accept") or ""):
            items, following = await events.list_events(tenant, _parse_number(cursor), limit, kind=type, may_see=may_see)
            return JSONResponse({"items": items, "next": None if following is None else str(following)})
        place = open_streams.acquire(caller.principal.owner_key)
        after = _parse_number(header(request.scope, b"last-event-id") or "")
        stream = place.hold_during(sse_lines(events.follow(tenant, after, kind=type, may_see=may_see)))
        return StreamingResponse(stream, media_type="text/event-stream", headers=STREAM_HEADERS)

    return router


def trigger_routes(load: Callable[[], Awaitable[Events]], access: RegistryAccess, authenticate: Authenticate, max_body: int) -> APIRouter:
    """Returns the routes of triggers. Callers see those of the workflows that they may start."""
    router = APIRouter(prefix="/api/triggers", tags=["workflows"])

    async def visible_names(caller: Caller) -> set[str]:
        found = await access.list_visible(caller)
        return {entry.name for entry in found if entry.family is Family.AGENT and entry.kind == WORKFLOW_KIND}

    @router.get("", name="list_triggers")
    async def list_all(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        items = await (await load()).triggers(caller.principal.tenant, await visible_names(caller))
        return JSONResponse({"items": items, "next": None})

    @router.post("/test", name="test_triggers", openapi_extra=describe_object_body(ONE_EVENT))
    async def test(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        document, names = await _read_json(request, max_body), await visible_names(caller)
        return JSONResponse({"items": await (await load()).test(caller.principal.tenant, document, names), "next": None})

    return router


async def _read_json(request: Request, max_body: int) -> Any:
    raw = await read_body(request.scope, request.receive, max_body)
    return await run_off_loop(parse, raw) if len(raw) > LARGE else parse(raw)


def _parse_number(text: str) -> int | None:
    """The number of an event, or None for an empty text. Raises BadCursor."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadCursor
    return int(text)
