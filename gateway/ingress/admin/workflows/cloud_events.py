"""/api/events and /api/triggers: takes CloudEvents 1.0 for the workflows of the tenant, shows them, and what they start.

Sending an event needs state:write:events/TYPE, seeing it state:read:events/TYPE. Only people do either.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from gateway.calls.authorizer import RequireInPerson
from gateway.calls.limits.open_streams import OpenStreams
from gateway.events.sources import EventSources, SourceRule
from gateway.events.standard_webhooks import SignatureRefused, SignedRequest
from gateway.ingress.admin.demand import require_permission
from gateway.ingress.admin.registry.access import RegistryAccess, act_of_registry_change
from gateway.ingress.admin.workflows.direct_routes import DirectRoute
from gateway.ingress.admin.workflows.events import STREAM_HEADERS, sse_lines
from gateway.ingress.http.asgi import header, headers_by_name, list_header, read_body
from gateway.ingress.http.rejected_credentials import LogRejection
from gateway.ingress.http.route_descriptions import describe_object_body
from gateway.storage.database import Batch
from gateway.storage.paging import BadCursor
from gateway.workflows.cloud_events.envelope import act_of_receiving
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant
from policies.strict_json import LARGE, parse, run_off_loop
from registry.cards.card import Family
from registry.store import UnknownName

Authenticate = Callable[[Request], Awaitable[Caller]]
# An agent sends and receives events by steps of workflows, under the rights of a run, and never through /api.
SEND_EVENTS = Act("sendEvent", "Key", "events", "state:write:events/*", "events")
SEE_EVENTS = Act("readState", "Key", "events", "state:read:events/*", "events")
PATH = "/api/events"
SOURCE_PATH = "/api/events/sources/{name}"
DESCRIPTION = "An event of CloudEvents 1.0 in structured or binary mode, or an array of at most 100."
SIGNED = "A webhook that is signed as Standard Webhooks has it: {type, timestamp, data}, or an event of CloudEvents 1.0."
SIGNED_MAX = 64 << 10  # bytes of a webhook, whose sender is not known before all of it is read
NAMES = (b"ce-", b"webhook-")  # of headers that belong to events
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

    def parse_events(self, headers: Mapping[str, str], body: bytes, document: Any) -> tuple[list[dict[str, Any]], list[Act]]: ...

    def publish(self, batch: Batch, tenant: str, sender: str, events: list[dict[str, Any]]) -> Any: ...

    def wake(self, published: Any) -> None: ...

    async def publish_signed(self, rule: SourceRule, signed: SignedRequest, headers: Mapping[str, str], document: Any) -> Published: ...

    async def list_events(
        self, tenant: str, before: int | None, limit: int, *, kind: str, reader: "Reader"
    ) -> tuple[list[dict[str, Any]], int | None]: ...

    def follow(self, tenant: str, after: int | None, *, kind: str, reader: "Reader") -> AsyncIterator[list[dict[str, Any]]]: ...

    async def triggers(self, tenant: str, names: Collection[str] | None) -> list[dict[str, Any]]: ...

    async def test(self, tenant: str, document: Any, names: Collection[str] | None) -> list[dict[str, Any]]: ...

    async def set_trigger_pause(self, tenant: str, workflow: str, paused_by: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads events: the owner key of the person, and what that person may do."""

    owner: str
    could_allow: Callable[[Act], bool]


class AuthorizeAndWrite(Protocol):
    """Writes in the commit that records the Grant of an act; gateway/calls/authorizer.py."""

    async def __call__(self, caller: Caller, act: Act, write: Callable[[Batch], Any]) -> Any: ...


@dataclass(frozen=True, slots=True)
class EventPermissions:
    """The rulings that routes of events need."""

    could_allow: Callable[[Caller, Act], bool]
    authorize: Callable[[Caller, Act], Awaitable[Grant]]
    authorize_and_write: AuthorizeAndWrite
    check_in_person: RequireInPerson


class EventReceiver:
    """Takes events that people and programs send with a token."""

    def __init__(self, load: Callable[[], Awaitable[Events]], permissions: EventPermissions, max_body: int) -> None:
        self._load = load
        self._permissions = permissions
        self._max_body = max_body

    async def receive(self, caller: Caller, request: Request) -> JSONResponse:
        """Stores the events of a request in the commit that records the last of its rulings."""
        permissions = self._permissions
        await permissions.check_in_person(caller, SEND_EVENTS)
        headers = _headers_of(request)
        body = await read_body(request.scope, request.receive, self._max_body)
        document = None if _is_binary(headers) else await _parse_json(body)
        events = await self._load()
        found, acts = events.parse_events(headers, body, document)
        for act in acts[:-1]:
            await require_permission(caller, permissions.authorize, act)
        write = partial(events.publish, tenant=caller.principal.tenant, sender=caller.principal.owner_key, events=found)
        published = await require_permission(caller, partial(permissions.authorize_and_write, write=write), acts[-1])
        events.wake(published)
        return _answer(len(found), published)


class WebhookReceiver:
    """Takes webhooks of other systems. They have no token: the signature of each request says who sends it."""

    def __init__(self, load: Callable[[], Awaitable[Events]], sources: EventSources, log_rejection: LogRejection) -> None:
        self._load = load
        self.sources = sources
        self._log_rejection = log_rejection

    async def receive(self, name: str, request: Request) -> JSONResponse:
        """Stores the event of a signed request of the source `name`."""
        rule = self.sources.find(name)
        headers = _headers_of(request)
        body = await read_body(request.scope, request.receive, SIGNED_MAX)
        try:
            signed = self.sources.verify(rule, headers, body)
        except SignatureRefused as refused:
            self._log_rejection("webhook-signature", f"/api/events/sources/{rule.name}", detail=str(refused))
            raise
        document = await _parse_json(body)
        return _answer(1, await (await self._load()).publish_signed(rule, signed, headers, document))


def direct_event_routes(receiver: EventReceiver, webhooks: WebhookReceiver, authenticate: Authenticate) -> tuple[DirectRoute, ...]:
    """Returns the two ways of events into the gateway, as they are served without the framework."""

    async def receive(request: Request, _: str) -> JSONResponse:
        return await receiver.receive(await authenticate(request), request)

    async def receive_signed(request: Request, name: str) -> JSONResponse:
        return await webhooks.receive(name, request)

    return DirectRoute("POST", PATH, receive), DirectRoute("POST", SOURCE_PATH, receive_signed)


def event_routes(
    load: Callable[[], Awaitable[Events]],
    receiver: EventReceiver,
    authenticate: Authenticate,
    permissions: EventPermissions,
    open_streams: OpenStreams,
) -> APIRouter:
    """Returns the routes of events."""
    router = APIRouter(prefix=PATH, tags=["workflows"])

    @router.post("", name="send_events", status_code=202, openapi_extra=describe_object_body(DESCRIPTION))
    async def send(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        return await receiver.receive(caller, request)

    @router.get("", name="list_events")
    async def list_all(
        caller: Annotated[Caller, Depends(authenticate)],
        request: Request,
        type: Annotated[str, Query(max_length=200)] = "",
        cursor: str = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> Response:
        await permissions.check_in_person(caller, SEE_EVENTS)
        events, tenant = await load(), caller.principal.tenant
        reader = Reader(caller.principal.owner_key, partial(permissions.could_allow, caller))
        if "text/event-stream" not in (list_header(request.scope, b"accept") or ""):
            items, following = await events.list_events(tenant, _parse_number(cursor), limit, kind=type, reader=reader)
            return JSONResponse({"items": items, "next": None if following is None else str(following)})
        place = open_streams.acquire_endless(caller.principal.owner_key)
        after = _parse_number(header(request.scope, b"last-event-id") or "")
        stream = place.hold_during(sse_lines(events.follow(tenant, after, kind=type, reader=reader)))
        return StreamingResponse(stream, media_type="text/event-stream", headers=STREAM_HEADERS)

    return router


def source_routes(webhooks: WebhookReceiver, authenticate: Authenticate, permissions: EventPermissions) -> APIRouter:
    """Returns the routes for webhooks of other systems, and for people who look which there are."""
    router = APIRouter(tags=["workflows"])

    @router.get(f"{PATH}/sources", name="list_event_sources")
    async def list_sources(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        """The sources of the tenant that send a type of event that the caller may receive."""
        await permissions.check_in_person(caller, SEE_EVENTS)
        rules = webhooks.sources.list_of(caller.principal.tenant)
        acts = {rule.name: [act_of_receiving(kind) for kind in rule.types] for rule in rules}
        shown = [rule for rule in rules if any(permissions.could_allow(caller, act) for act in acts[rule.name])]
        return JSONResponse({"items": [_source_document(rule) for rule in shown], "next": None})

    @router.post(SOURCE_PATH, name="receive_webhook", status_code=202, openapi_extra=describe_object_body(SIGNED))
    async def receive(name: Annotated[str, Path(max_length=64)], request: Request) -> JSONResponse:
        return await webhooks.receive(name, request)

    return router


def _source_document(rule: SourceRule) -> dict[str, Any]:
    """A source without its secret and its schema."""
    path = SOURCE_PATH.replace("{name}", rule.name)
    return {"name": rule.name, "types": list(rule.types), "subject": rule.subject or None, "source": rule.uri, "path": path}


def trigger_routes(load: Callable[[], Awaitable[Events]], access: RegistryAccess, authenticate: Authenticate, max_body: int) -> APIRouter:
    """Returns the routes of triggers. Callers see those of what they may start, and operators all."""
    router = APIRouter(prefix="/api/triggers", tags=["workflows"])

    async def visible_names(caller: Caller) -> set[str] | None:
        """The entries of which the caller sees the triggers; None for all, also of entries that are not registered."""
        return None if access.is_operator(caller) else {entry.name for entry in await access.list_visible(caller)}

    @router.get("", name="list_triggers")
    async def list_all(caller: Annotated[Caller, Depends(authenticate)]) -> JSONResponse:
        items = await (await load()).triggers(caller.principal.tenant, await visible_names(caller))
        return JSONResponse({"items": items, "next": None})

    @router.post("/test", name="test_triggers", openapi_extra=describe_object_body(ONE_EVENT))
    async def test(caller: Annotated[Caller, Depends(authenticate)], request: Request) -> JSONResponse:
        document, names = await _read_json(request, max_body), await visible_names(caller)
        return JSONResponse({"items": await (await load()).test(caller.principal.tenant, document, names), "next": None})

    async def set_pause(caller: Caller, workflow: str, verb: str, paused_by: str) -> JSONResponse:
        """Raises UnknownName, and CallRefused for anyone but operators."""
        entry = access.find(caller, Family.AGENT, workflow)
        await access.authorize_change(caller, act_of_registry_change(f"{verb}-trigger", entry.family, entry.name))
        if not await (await load()).set_trigger_pause(caller.principal.tenant, workflow, paused_by):
            raise UnknownName(workflow)
        return JSONResponse({"workflow": workflow, "paused": bool(paused_by)})

    @router.post("/{workflow}/pause", name="pause_trigger")
    async def pause_trigger(caller: Annotated[Caller, Depends(authenticate)], workflow: str) -> JSONResponse:
        """Has the schedule of a workflow start nothing: moments are missed and events wait until it is resumed."""
        return await set_pause(caller, workflow, "pause", caller.principal.owner_key)

    @router.post("/{workflow}/resume", name="resume_trigger")
    async def resume_trigger(caller: Annotated[Caller, Depends(authenticate)], workflow: str) -> JSONResponse:
        """Has the schedule of a workflow go on."""
        return await set_pause(caller, workflow, "resume", "")

    return router


def _answer(count: int, published: Published) -> JSONResponse:
    not_started = [{"workflow": each.workflow, "source": each.source, "id": each.id} for each in published.not_started]
    return JSONResponse({"accepted": count, "repeated": count - published.new, "not_started": not_started}, 202)


async def _read_json(request: Request, max_body: int) -> Any:
    return await _parse_json(await read_body(request.scope, request.receive, max_body))


async def _parse_json(raw: bytes) -> Any:
    return await run_off_loop(parse, raw) if len(raw) > LARGE else parse(raw)


def _headers_of(request: Request) -> dict[str, str]:
    """The headers that say what a body is. Raises BadHeader for one that is sent twice or is not ASCII."""
    names = [name for name in headers_by_name(request.scope) if name == b"content-type" or name.startswith(NAMES)]
    return {name.decode("latin-1"): header(request.scope, name) or "" for name in names}


def _is_binary(headers: Mapping[str, str]) -> bool:
    """Whether the body is the data of the event, and its headers are the other attributes (CloudEvents over HTTP 1.0.2, s3)."""
    return "ce-specversion" in headers and not headers.get("content-type", "").lower().startswith("application/cloudevents")


def _parse_number(text: str) -> int | None:
    """The number of an event, or None for an empty text. Raises BadCursor."""
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BadCursor
    return int(text)
