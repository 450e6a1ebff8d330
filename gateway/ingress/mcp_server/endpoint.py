"""Streamable HTTP at /mcp and /mcp/{server}: both eras on one URL. A request is admitted, read, told by its era, answered."""

import asyncio
from typing import Any

import msgspec
import structlog

from adapters.contract import UpstreamFault
from adapters.mcp_client.wire.messages import LEGACY
from gateway.ingress.http.asgi import BadHeader, Receive, Scope, Send, check_json, header, read_body, respond
from gateway.ingress.http.authentication import Admission
from gateway.ingress.http.deadline_header import deadline_in
from gateway.ingress.http.errors import InvalidRequest, http_headers
from gateway.ingress.http.request_trace import Visit
from gateway.ingress.mcp_server.batches import answer_batch
from gateway.ingress.mcp_server.catalogue.visible import Offers
from gateway.ingress.mcp_server.era_dispatch import Conversations
from gateway.ingress.mcp_server.http_sse import HttpSse, session_named, wants_line
from gateway.ingress.mcp_server.protocol import modern
from gateway.ingress.mcp_server.protocol.disconnect import ClientLeft, Watch
from gateway.ingress.mcp_server.protocol.errors import Refusal, refusal_of
from gateway.ingress.mcp_server.protocol.message import Answered, Asked, Batched, envelope, is_plain
from gateway.ingress.mcp_server.protocol.response import Backlog, Outlet
from gateway.ingress.mcp_server.protocol.sessions import UnknownSession
from gateway.ingress.mcp_server.upstream_requests import Relay
from gateway.storage.database import NotKept, NotRead
from gateway.storage.mailbox import TooMuchKept
from gateway.telemetry.spans import TRACEPARENT
from policies.strict_json import LARGE, off_loop, parse

CANCELED = "canceled"
encode = msgspec.json.Encoder().encode
log = structlog.get_logger()

NAMED = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}  # what params.name is


class Endpoint:
    """The endpoint of all servers together, and of each."""

    name = "mcp"

    def __init__(
        self, admission: Admission, relay: Relay, conversations: Conversations, http_sse: HttpSse, max_body: int, *, offers: Offers
    ) -> None:
        self._admission = admission
        self._offers = offers
        self._relay = relay
        self._conversations = conversations
        self._http_sse = http_sse
        self._max_body = max_body
        self._backlog = Backlog()
        self._watch = Watch()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, server: str, visit: Visit) -> None:
        """Answers one request. What a modern client calls without wanting more than the answer goes straight through."""
        resource = f"/mcp/{server}" if server else "/mcp"
        asked: Asked | None = None
        outlet: Outlet | None = None
        try:
            caller = await self._admission.admit(scope, resource)
            visit.last = deadline_in(scope)
            if scope["method"] != "POST":
                asked = Asked(caller, server, resource, None, scope["method"], None, b"", False, visit.trail, scope)
                await self._without_body(asked, receive, send)
                return
            check_json(scope)
            raw = await read_body(scope, receive, self._max_body)
            document = parse(raw) if len(raw) <= LARGE else await off_loop(parse, raw)
            try:
                request_id, visit.method, params = envelope(document)
            except Answered:
                visit.outcome = await self._take(Asked(caller, server, resource, None, "", document, raw, False, visit.trail, scope), send)
                return
            except Batched as batch:
                asked = Asked(caller, server, resource, None, "", None, raw, False, visit.trail, scope)
                outlet = Outlet(scope, receive, send, self._backlog)
                await answer_batch(self._conversations, await self._in_session(asked), batch.items, outlet)
                return
            _note(visit, request_id, params)
            is_modern = modern.is_modern(scope, params, LEGACY)
            asked = Asked(caller, server, resource, request_id, visit.method, params, raw, is_modern, visit.trail, scope)
            if is_modern and request_id is not None:
                modern.check(scope, visit.method, params)
                if visit.method == "tools/call" and is_plain(params):
                    task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # a door runs in a task
                    self._watch.enter(task, receive)
                    try:
                        result = await self._relay.call(asked, None)
                    finally:
                        self._watch.leave(task)
                    await respond(send, 200, b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (encode(request_id), result))
                    return
            outlet = Outlet(scope, receive, send, self._backlog)
            await self._converse(asked, outlet)
        except asyncio.CancelledError:
            if not self._watch.has_left(asyncio.current_task()):
                raise
            visit.outcome = CANCELED
        except ClientLeft:
            visit.outcome = CANCELED
        except Exception as error:  # noqa: BLE001 (the door: whatever happens, the caller gets an answer of the protocol, and the log the rest)
            visit.outcome = await self._refuse(outlet, send, asked, resource, error)

    async def _take(self, asked: Asked, send: Send) -> str:
        """What an older client answers."""
        try:
            if modern.is_modern(asked.scope, None, LEGACY):
                raise InvalidRequest("a request is expected")
            await self._conversations.take(await self._in_session(asked))
        except (InvalidRequest, BadHeader, UnknownSession, modern.BadEnvelope, TooMuchKept, NotKept, NotRead) as error:
            refusal = refusal_of(error)
            await respond(send, refusal.status, _error(None, refusal))
            return refusal.reason
        await respond(send, 202, b"")
        return "ok"

    async def _converse(self, asked: Asked, outlet: Outlet) -> None:
        if asked.modern and asked.id is None:
            modern.check_notification(asked.scope)
            await outlet.finish(b"", 202)
        elif asked.modern:
            await self._conversations.modern(asked, outlet)
        elif session_named(asked.scope) is not None:
            await self._http_sse.take(await self._in_session(asked), outlet)
        elif asked.method == "initialize" and asked.id is not None:
            await self._conversations.initialize(asked, outlet)
        elif asked.id is None:
            await self._conversations.notified(await self._in_session(asked))
            await outlet.finish(b"", 202)
        else:
            await self._conversations.older(await self._in_session(asked), outlet)

    async def _in_session(self, asked: Asked) -> Asked:
        """With its session, where it names one. Raises UnknownSession. A request without one is served as far as it needs none."""
        shown = header(asked.scope, b"mcp-session-id")
        if shown is None:
            shown = session_named(asked.scope)
        if shown is None:
            return asked
        return msgspec.structs.replace(asked, session=await self._conversations.sessions.find(shown, asked.caller, asked.resource))

    async def _without_body(self, asked: Asked, receive: Receive, send: Send) -> None:
        """DELETE ends a session, GET opens its stream; without a session GET opens both, for clients of HTTP+SSE."""
        shown, verb = header(asked.scope, b"mcp-session-id"), asked.method
        opens = verb == "GET" and shown is None and wants_line(asked.scope)
        if modern.is_modern(asked.scope, None, LEGACY) or not (opens or verb == "DELETE" or (verb == "GET" and shown is not None)):
            await respond(send, 405, b"{}", [(b"allow", b"POST, GET, DELETE")])
            return
        if opens:
            await self._http_sse.open(asked, Outlet(asked.scope, receive, send, self._backlog))
            return
        session = await self._conversations.sessions.find(shown or "", asked.caller, asked.resource)
        if verb == "DELETE":
            await self._conversations.close(session)
            await respond(send, 204, b"")
        else:
            await self._conversations.stream(asked, session, Outlet(asked.scope, receive, send, self._backlog))

    async def _refuse(self, outlet: Outlet | None, send: Send, asked: Asked | None, resource: str, error: Exception) -> str:
        """Answers with the error, and returns its reason. Nothing of the request is read here: what can't be read may be the error."""
        legacy = asked is not None and not asked.modern and (asked.id is not None or not asked.method)
        if asked is not None and isinstance(error, UpstreamFault):
            self._offers.explain(asked.caller, error)
        refusal = refusal_of(error, legacy=legacy)
        if refusal.reason == "internal":
            log.exception("mcp_door_failed", resource=resource)
        body = _error(asked.id if asked else None, refusal)
        headers = http_headers(refusal.told, self._admission, resource) if refusal.told is not None else ()
        if outlet is None:
            await respond(send, refusal.status, body, headers)
        else:
            await outlet.finish(body, refusal.status, headers)
        return refusal.reason


def _note(visit: Visit, request_id: Any, params: Any) -> None:
    """What a message says of itself for its span, and the trace that it belongs to (`_meta.traceparent`)."""
    if not isinstance(params, dict):
        return
    meta, name = params.get("_meta"), params.get("name")
    if isinstance(meta, dict) and TRACEPARENT in meta:
        visit.join(meta[TRACEPARENT])
    if visit.tracer is None:
        return
    visit.attributes |= {"mcp.method.name": visit.method, "jsonrpc.request.id": str(request_id)}
    if visit.method in NAMED and isinstance(name, str):
        visit.attributes[NAMED[visit.method]] = visit.target = name


def _error(request_id: Any, refusal: Refusal) -> bytes:
    return encode({"jsonrpc": "2.0", "id": request_id, "error": refusal.error})
