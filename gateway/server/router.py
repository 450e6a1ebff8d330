"""Routes requests to the protocol servers. A2A and MCP are reached on bare ASGI, before the framework."""

import asyncio
import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from gateway.ingress.a2a_server.agent_notifications import NotificationEndpoint
from gateway.ingress.a2a_server.bindings.jsonrpc import JsonRpcEndpoint
from gateway.ingress.a2a_server.bindings.rest import RestEndpoint
from gateway.ingress.a2a_server.cards import AgentCardEndpoint
from gateway.ingress.http.asgi import SECURITY_HEADERS, App, BadHeader, Header, Receive, Scope, Send, respond
from gateway.ingress.http.authentication import PROTOCOLS_KEY, ForeignOrigin, RequestAuthentication, WrongHost
from gateway.ingress.http.cors import ANY, Cors
from gateway.ingress.http.error_bodies import respond_problem
from gateway.ingress.http.errors import InvalidRequest
from gateway.ingress.http.request_trace import RequestTrace, RequestTraces, read_traceparent
from gateway.ingress.mcp_server.endpoint import McpEndpoint
from gateway.server.drain import Drain, with_connection_close
from gateway.server.health import HEALTH_PATHS, Health
from gateway.tasks.turns.in_flight import ShuttingDown
from registry.names import FRONT_DOOR

log = structlog.get_logger()
MCP_PATH = re.compile(r"/mcp(?:/((?:virtual/)?[a-z0-9-]{1,64}))?")
PUBLIC_PREFIX = "/.well-known/"  # pages of any origin may read it
ANY_PAGE = ("/.well-known/oauth-", "/.well-known/jwks.json", "/oauth/token", "/oauth/register")
"""Paths that pages of every origin may call: clients in browsers sign in there, without cookies."""
CLIENTS = ("/agents/", "/mcp", "/.well-known/agent")  # paths that browser clients of A2A and MCP call
CARD_PATHS: Final = frozenset({"/.well-known/agent-card.json", "/.well-known/agent.json"})
NOTIFICATION_PATH: Final = re.compile(r"/notifications/([A-Za-z0-9_-]{1,128})")
AGENT_PATH = re.compile(r"/agents/([a-z0-9-]{1,64})(/.*)?")


@dataclass(frozen=True, slots=True)
class A2aEndpoints:
    """The endpoints of A2A over HTTP: JSON-RPC, HTTP+JSON, the cards, and push notifications of agents."""

    jsonrpc: JsonRpcEndpoint
    rest: RestEndpoint
    cards: AgentCardEndpoint
    notifications: NotificationEndpoint


@dataclass(frozen=True, slots=True)
class Handlers:
    """The ASGI applications that the router dispatches to. `lifespan` handles start and stop; `framework` handles all other paths."""

    a2a: A2aEndpoints
    mcp: McpEndpoint
    health: Health
    framework: App
    lifespan: App


OPEN_CORS: Final = Cors({ANY})
NO_STORE: Header = (b"cache-control", b"no-store")
ANSWERED_KEY = "interlock.answered"  # in a request's scope: the framework has begun to answer


def with_security_headers(scope: Scope, send: Send) -> Send:
    """Adds security headers to every answer of the framework, except those that the route has set."""

    async def send_with_headers(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            scope[ANSWERED_KEY] = True
            headers = list(message["headers"])
            known = {name for name, _ in headers}
            more = (each for each in (*SECURITY_HEADERS, NO_STORE) if each[0] not in known)
            message = {**message, "headers": [*headers, *more]}
        await send(message)

    return send_with_headers


def _first_step(path: str) -> str:
    """Returns the first segment of a path; "" for one without a slash, such as the `*` of OPTIONS (RFC 9110 s7.1)."""
    return path.partition("/")[2].partition("/")[0]


def door_of(path: str) -> str:
    """Returns the name of the protocol server of a framework request, as the metrics label `door` has it."""
    top = _first_step(path)
    return "admin" if top == "api" else "oauth" if top in ("oauth", ".well-known") else "console"


def noting_status(request_trace: RequestTrace, send: Send) -> Send:
    """Makes the status of the answer the outcome of the trace, unless an error has set it already."""

    async def send_and_note_status(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            status = message["status"]
            request_trace.attributes["http.response.status_code"] = status
            if request_trace.outcome == "ok" and status >= 400:
                request_trace.outcome = "denied" if status in (401, 403) else "rejected" if status < 500 else "error"
        await send(message)

    return send_and_note_status


def note_route(request_trace: RequestTrace, scope: Scope) -> None:
    """Names the span after the route, which has few values, and not after the path."""
    request_trace.attributes["http.request.method"] = request_trace.method
    if (route := getattr(scope.get("route"), "path", "")) and request_trace.outcome not in ("error", "rejected"):
        request_trace.attributes["http.route"] = request_trace.target = route


class Router:
    """The ASGI application."""

    def __init__(self, authentication: RequestAuthentication, handlers: Handlers, request_traces: RequestTraces, drain: Drain) -> None:
        self._authentication = authentication
        self._handlers = handlers
        self._request_traces = request_traces
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request. During a drain new requests are refused, and a canceled one gets an orderly end."""
        handlers, drain = self._handlers, self._drain
        if scope["type"] != "http":
            await (handlers.lifespan if scope["type"] == "lifespan" else handlers.framework)(scope, receive, send)
            return
        if drain.begun:
            send = with_connection_close(send)
        if (cors := self._cors_for(scope["path"])) is not None:
            if await self._is_preflight(cors, scope, send):
                return
            send = cors.with_cors_headers(scope, send)
        if drain.refuses and scope["path"] not in HEALTH_PATHS:
            await respond_problem(send, ShuttingDown())
            return
        request = drain.enter()
        try:
            await self._route(scope, receive, send)
        except asyncio.CancelledError:
            if not drain.has_cut(request):
                raise
            await _end(send)
        finally:
            drain.leave(request)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatches an HTTP request. Answers unexpected exceptions, unless the answer has begun."""
        handlers, path = self._handlers, scope["path"]
        try:
            if (server := _server_of(path)) is not None:
                await self._serve_mcp(scope, receive, send, server)
            elif scope["method"] == "HEAD":
                await answer_head(self._route, scope, receive, send)
            elif (agent := _agent_of(path)) is not None:
                await self._serve_a2a(scope, receive, send, *agent)
            elif path in CARD_PATHS:
                await self._serve_a2a(scope, receive, send, FRONT_DOOR, path)
            elif path in HEALTH_PATHS:
                await handlers.health(scope, receive, send)
            else:
                await self._serve_framework(scope, receive, send)
        except Exception as error:
            if ANSWERED_KEY in scope:  # the framework re-raises an error that it has answered
                raise
            log.exception("request_failed", door=_first_step(path))
            try:
                await respond_problem(send, error)
            except RuntimeError:  # the answer had begun, so the server must close the connection
                raise error from None

    def _cors_for(self, path: str) -> Cors | None:
        """Returns what decides on pages of other origins at this path; None where they may not call."""
        if path.startswith(CLIENTS):
            return self._authentication.cors
        return OPEN_CORS if path.startswith(ANY_PAGE) else None

    async def _is_preflight(self, cors: Cors, scope: Scope, send: Send) -> bool:
        """Answers a CORS preflight of an allowed origin. Returns False for any other request."""
        answer = cors.preflight(scope)
        if answer is None:
            return False
        try:
            self._authentication.check_host(scope)
        except (WrongHost, BadHeader) as error:
            await respond_problem(send, error)
        else:
            await respond(send, 200, b"", answer)
        return True

    async def _serve_framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request by the framework, after checks of its host, origin and path, since the framework trusts the Host header."""
        request_trace = self._request_traces.begin(door_of(scope["path"]), _first_step(scope["path"]), read_traceparent(scope))
        request_trace.method = scope["method"]
        send = noting_status(request_trace, send)
        scope[PROTOCOLS_KEY] = self
        try:
            self._check(scope)
            await self._handlers.framework(scope, receive, with_security_headers(scope, send))
        except (WrongHost, ForeignOrigin, BadHeader, InvalidRequest) as error:
            if ANSWERED_KEY in scope:
                raise
            await respond_problem(send, error)
        finally:
            note_route(request_trace, scope)
            self._request_traces.end(request_trace)

    def _check(self, scope: Scope) -> None:
        """Raises WrongHost, ForeignOrigin, BadHeader, and InvalidRequest for a NUL character."""
        self._authentication.check_host(scope)
        if not scope["path"].startswith((PUBLIC_PREFIX, *ANY_PAGE)):
            self._authentication.check_origin(scope)
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:  # PostgreSQL stores no NUL in text
            raise InvalidRequest("the URL has a NUL character")

    async def _serve_a2a(self, scope: Scope, receive: Receive, send: Send, name: str, subpath: str) -> None:
        """Serves a request for the agent `name`. `subpath` is the part of the path after the agent's name."""
        endpoints = self._handlers.a2a
        request_trace = self._request_traces.begin("a2a", "/agents", read_traceparent(scope))
        try:
            if subpath in CARD_PATHS:
                request_trace.method = scope["method"]
                await endpoints.cards(scope, send, name)
            elif (found := NOTIFICATION_PATH.fullmatch(subpath)) is not None:
                request_trace.method = scope["method"]
                await endpoints.notifications(scope, receive, send, name, found[1])
            else:
                await (endpoints.jsonrpc if subpath in ("", "/") else endpoints.rest)(scope, receive, send, name, request_trace)
        finally:
            self._request_traces.end(request_trace)

    async def _serve_mcp(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        endpoint = self._handlers.mcp
        request_trace = self._request_traces.begin(endpoint.name, "/mcp", read_traceparent(scope))
        try:
            await endpoint(scope, receive, send, name, request_trace)
        finally:
            self._request_traces.end(request_trace)


async def answer_head(app: App, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers HEAD by the head of the answer to GET (RFC 9110 s9.3.2).

    What `app` does after the head is not awaited, since the answer may be a stream without an end.
    """
    seen, answered = {**scope, "method": "GET"}, asyncio.Event()

    async def send_head(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b""})
            answered.set()

    answering, waiting = asyncio.ensure_future(app(seen, receive, send_head)), asyncio.ensure_future(answered.wait())
    try:
        await asyncio.wait((answering, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        answering.cancel()
        await asyncio.wait((answering,))
    if not answering.cancelled():
        answering.result()


def _server_of(path: str) -> str | None:
    """Returns which server a path of MCP names, "" for all, or None for any other path."""
    found = MCP_PATH.fullmatch(path) if path.startswith("/mcp") else None
    return None if found is None else found[1] or ""


def _agent_of(path: str) -> tuple[str, str] | None:
    """Returns the agent that a path of A2A names and the rest of the path, or None for any other path."""
    found = AGENT_PATH.fullmatch(path) if path.startswith("/agents/") else None
    return None if found is None else (found[1], found[2] or "")


async def _end(send: Send) -> None:
    """Ends a request that the drain has canceled: with an error, or by the end of a stream that has begun."""
    try:
        await respond_problem(with_connection_close(send), ShuttingDown())
    except RuntimeError:  # the answer had begun
        await send({"type": "http.response.body", "body": b""})
