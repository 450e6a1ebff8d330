"""Builds the A2A servers, the health endpoint, and the console."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.audit.decisions import READ_AUDIT
from gateway.concurrency.admission import Admission, AdmissionLimits
from gateway.ingress.a2a_server.agent_notifications import NotificationEndpoint
from gateway.ingress.a2a_server.bindings.jsonrpc import JsonRpcEndpoint
from gateway.ingress.a2a_server.bindings.rest import RestEndpoint
from gateway.ingress.a2a_server.cards import AgentCardEndpoint, CardPublishing
from gateway.ingress.a2a_server.extended_cards import ExtendedCards
from gateway.ingress.a2a_server.operations import OperationDependencies, Operations
from gateway.ingress.http.asgi import Receive, Scope, Send
from gateway.ingress.http.authentication import RequestAuthentication
from gateway.ingress.http.request_trace import RequestTraces
from gateway.ingress.http.scrape_token import ScrapeToken
from gateway.ingress.oauth.pages import leaving_page
from gateway.ingress.oauth.sign_in.sessions import SignedInPerson
from gateway.server.composition.oauth.console import ConsoleSignIns
from gateway.server.composition.process import Gateway
from gateway.server.health import Check, Health
from gateway.server.router import A2aEndpoints
from gateway.server.settings import resolve_credential
from gateway.server.sockets.admitted_requests import RefusalReports, RequestAdmission
from gateway.tasks.pages import TaskPages
from gateway.tasks.reader import TaskReader
from policies.callers import Caller
from policies.delegation.permissions import ALL_PERMISSIONS
from policies.ids import now_us
from policies.tokens.replay_guard import ReplayGuard
from registry.cards.card import Registration, Skill
from registry.cards.republish import add_a2a_03_members, publish_card, signed_for_both

if TYPE_CHECKING:
    from gateway.ingress.a2a_server.bindings.grpc import GrpcServer
    from gateway.ingress.console.app import ConsoleApp
    from gateway.ingress.console.sign_in.links import ConsoleLinks
    from gateway.ingress.console.sign_in.sessions import ConsoleSessions


AdmitCall = Callable[[str | None, str], Awaitable[None]]  # see RequestAdmission.admit_call


class PublishedCards:
    """Builds the card of an agent in each form that callers receive."""

    def __init__(self, gateway: Gateway) -> None:
        self._url = gateway.settings.public_url
        self._grpc = gateway.settings.public_grpc
        self._keys = gateway.keys

    def newer(self, found: Registration, offered: Callable[[Skill], bool] | None = None) -> dict[str, Any]:
        """Builds the A2A 1.0 card with all skills, or with those for which `offered` returns True."""
        return publish_card(found, self._url, self._keys, offered, self._grpc)

    def united(self, found: Registration, card: Mapping[str, Any]) -> dict[str, Any]:
        """Builds a card for A2A 1.0 and 0.3 from the A2A 1.0 `card`."""
        return add_a2a_03_members(found, card, self._url, self._keys)

    def extended(self, found: Registration, offered: Callable[[Skill], bool]) -> dict[str, Any]:
        """Builds the A2A 1.0 card for one caller, with signatures that A2A 0.3 callers can verify too."""
        return signed_for_both(self.newer(found, offered), self._url, self._keys)


def build_operations(gateway: Gateway) -> Operations:
    """Builds the operations that every binding of A2A offers."""
    extended = ExtendedCards(PublishedCards(gateway).extended, gateway.front_door, gateway.rulings.authority.could_allow)
    dependencies = OperationDependencies(
        TaskReader(gateway.stores.tasks),
        TaskPages(gateway.database),
        gateway.webhooks.configs,
        extended.extended_card,
        gateway.open_streams,
    )
    return Operations(gateway.calls.agents, dependencies)


def build_a2a_server(
    gateway: Gateway, authentication: RequestAuthentication, operations: Operations, request_traces: RequestTraces
) -> A2aEndpoints:
    size = gateway.settings.server.max_body
    front_door = replace(gateway.front_door.registration("default"), created=now_us(), updated=now_us())
    published = PublishedCards(gateway)
    cards = AgentCardEndpoint(authentication, gateway.registry, front_door, CardPublishing(published.newer, published.united, gateway.keys))
    jsonrpc, rest = JsonRpcEndpoint(authentication, operations, size), RestEndpoint(authentication, operations, size)
    return A2aEndpoints(jsonrpc, rest, cards, NotificationEndpoint(gateway.push_wakeups))


def _import_grpc_server() -> "type[GrpcServer]":
    from gateway.ingress.a2a_server.bindings.grpc import GrpcServer

    return GrpcServer


def build_admission(gateway: Gateway) -> RequestAdmission:
    """Builds the admission of requests to this process, and its figures."""
    server, metrics = gateway.settings.server, gateway.metrics
    limits = AdmissionLimits(server.admission_lag, server.admission_queue)
    admission = Admission(limits, lambda: gateway.database.write_wait_seconds)
    metrics.add_gauge("requests_waiting", "Requests that wait to be admitted.", lambda: admission.waiting_count)
    count = metrics.counter("requests_refused", "Requests refused because the process is overloaded.", "caller")
    reports = RefusalReports(admission, count, gateway.limits.count_overload)
    return RequestAdmission(admission, gateway.rulings.token_verifier.owners.find, reports)


async def open_grpc_server(
    gateway: Gateway, authentication: RequestAuthentication, operations: Operations, request_traces: RequestTraces, admit: AdmitCall
) -> None:
    """Opens the gRPC server. Loads its libraries in a thread, so that other servers answer requests during the import."""
    server_class = await asyncio.to_thread(_import_grpc_server)
    settings = gateway.settings
    server = server_class(authentication, operations, request_traces, settings.server.max_body, admit=admit)
    gateway.lifecycle.on_stop(server.close)
    gateway.lifecycle.on_drain(server.close)
    await server.open(settings.host, settings.grpc_port, reuse_port=settings.workers > 1)


def build_health(gateway: Gateway, authentication: RequestAuthentication) -> Health:
    checks: dict[str, Check] = {
        "serving": lambda: not gateway.drain.begun,
        "database": lambda: gateway.database.is_fresh() and gateway.database.is_writable,
        "policies": lambda: gateway.rulings.engine.is_healthy,
    }

    reference = gateway.settings.telemetry.metrics_token
    scraper = ScrapeToken(lambda: resolve_credential(reference)) if reference else None

    async def may_read(scope: Scope) -> bool:
        if scraper is not None and scraper.is_shown(scope):
            return True
        return await authentication.is_permitted_caller(
            scope, "/metrics", lambda caller: gateway.rulings.authority.could_allow(caller, READ_AUDIT)
        )

    return Health(checks, gateway.metrics.render, may_read, challenge=authentication.challenge(""))


CONSOLE_PATHS = ("/console", "/console/{path:path}")


class LazyConsole:
    """The console of one process. Its templates and their library are loaded when the first request for it comes."""

    def __init__(self, gateway: Gateway, sign_ins: ConsoleSignIns) -> None:
        self._gateway = gateway
        self._sign_ins = sign_ins
        self._app: ConsoleApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request for a page."""
        await (await self._load())(scope, receive, send)

    async def complete_sign_in(self, request: Request, person: SignedInPerson, reference: str) -> Response:
        """Opens the session of a person who has signed in, and leads to the page `reference` that they came from."""
        from gateway.ingress.console.sign_in.sessions import SESSION_SECONDS, ProvenPerson

        app = await self._load()
        session, store = self._sign_ins.open(person, SESSION_SECONDS)
        proven = ProvenPerson(person.principal, ALL_PERMISSIONS, session.until / 1e6, session.id)
        cookie = await app.open_session(request.scope, proven, store)
        page = leaving_page("Signed in", reference, "the console")
        page.headers["set-cookie"] = cookie.decode()
        return page

    async def _load(self) -> "ConsoleApp":
        if self._app is None:
            await asyncio.to_thread(_import_console)  # other requests are answered meanwhile
            self._app = self._app or self._build()
        return self._app

    async def _begin_sign_in(self, scope: Scope, receive: Receive, send: Send, to: str) -> None:
        await self._sign_ins.begin(Request(scope), to)(scope, receive, send)

    async def create_link(self, caller: Caller) -> tuple[str, float]:
        """Returns the address of a one-time link for the person of a token, and for how many seconds it is good."""
        from gateway.ingress.console.sign_in.links import LINK_SECONDS
        from gateway.ingress.console.sign_in.sessions import proven_person_of

        secret = await self._links(self._sessions()).create(proven_person_of(caller))
        return f"{self._gateway.settings.public_url}/console/sign-in?link={secret}", LINK_SECONDS

    def _sessions(self) -> "ConsoleSessions":
        from gateway.ingress.console.sign_in.sessions import ConsoleSessions

        return ConsoleSessions(self._gateway.database, now_us, self._gateway.audit.record, self._sign_ins)

    def _links(self, sessions: "ConsoleSessions") -> "ConsoleLinks":
        from gateway.ingress.console.sign_in.links import ConsoleLinks

        return ConsoleLinks(self._gateway.database, sessions, now_us, self._gateway.audit.record)

    def _build(self) -> "ConsoleApp":
        from gateway.ingress.console.app import ConsoleApp, ConsoleParts
        from gateway.ingress.console.live import LiveStreams

        gateway, sessions = self._gateway, self._sessions()
        return ConsoleApp(
            ConsoleParts(
                sessions=sessions,
                links=self._links(sessions),
                resolve=gateway.rulings.caller_resolver.resolve_session,
                could_allow=gateway.rulings.authority.could_allow,
                count_request=gateway.limits.count_request,
                spend=ReplayGuard(gateway.database, now_us).consume,
                streams=LiveStreams(gateway.open_streams),
                begin_sign_in=self._begin_sign_in if gateway.settings.has_sign_in else None,
                public_url=gateway.settings.public_url,
            )
        )


def _import_console() -> None:
    from gateway.ingress.console import app as app
