"""Builds the A2A servers, the verification of credentials, the health endpoint, and what loads the framework."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

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
from gateway.ingress.http.proofs import RequestProofs
from gateway.ingress.http.request_trace import RequestTraces
from gateway.ingress.http.scrape_token import ScrapeToken
from gateway.ingress.oauth.client import ClientAuthentication
from gateway.server.composition.process import Gateway
from gateway.server.health import Check, Health, find_metrics_refusal, passes
from gateway.server.router import A2aEndpoints
from gateway.server.settings import resolve_credential
from gateway.server.sockets.admission.admitted_requests import RefusalReports, RequestAdmission
from gateway.tasks.pages import TaskCounts, TaskPages
from gateway.tasks.reader import TaskReader
from policies.ids import now_us
from policies.tokens.client_assertion import ClientAssertionVerifier
from policies.tokens.dpop import DpopVerifier
from policies.tokens.replay_guard import ReplayGuard
from policies.tokens.tickets import Tickets
from registry.cards.card import Registration, Skill
from registry.cards.republish import add_a2a_03_members, publish_card, signed_for_both

if TYPE_CHECKING:
    from gateway.ingress.a2a_server.bindings.grpc import GrpcServer
    from gateway.ingress.admin.workflows.direct_routes import DirectRoutes


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
        TaskPages(gateway.database, TaskCounts(gateway.stores.tasks.pruning, now_us)),
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

    readiness = {name: partial(_read_check, check) for name, check in checks.items()}
    gateway.metrics.add_labelled_gauge("ready", "Checks of /readyz: 1 passes, 0 fails.", "check", readiness, "livemin")
    reference = gateway.settings.telemetry.metrics_token
    scraper = ScrapeToken(lambda: resolve_credential(reference)) if reference else None

    async def find_refusal(scope: Scope) -> Exception | None:
        if scraper is not None and scraper.is_shown(scope):
            return None
        return await find_metrics_refusal(authentication, scope, lambda caller: gateway.rulings.authority.could_allow(caller, READ_AUDIT))

    return Health(checks, gateway.metrics.render, find_refusal, challenge=authentication.challenge(""))


def _read_check(check: Check) -> float:
    return float(passes(check))


def build_client_authentication(gateway: Gateway) -> ClientAuthentication:
    """Builds the client authentication of agents, which all protocol servers use."""
    url = gateway.settings.public_url
    assertions = ClientAssertionVerifier((url, f"{url}/oauth/token"), time.time)
    return ClientAuthentication(gateway.registry, assertions, ReplayGuard(gateway.database, now_us))


def build_proofs(gateway: Gateway, clients: ClientAuthentication) -> RequestProofs:
    """Builds the verification of credentials beside a token: DPoP proofs and tickets."""
    url, possession = gateway.settings.public_url, DpopVerifier(gateway.keys, ReplayGuard(gateway.database, now_us), time.time)
    grpc_url = f"{urlsplit(url).scheme}://{gateway.settings.public_grpc}"
    return RequestProofs(clients, Tickets(gateway.database, time.time), possession, public_url=url, grpc_url=grpc_url)


class LazyFramework:
    """The application of administration, OAuth and the console. Its modules are loaded when the first request for it comes."""

    def __init__(
        self, gateway: Gateway, authentication: RequestAuthentication, clients: ClientAuthentication, proofs: RequestProofs
    ) -> None:
        self._parts = (gateway, authentication, clients, proofs)
        self._app: DirectRoutes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if self._app is None:
            await asyncio.to_thread(_import_framework)  # other requests are answered meanwhile
        await self.load()(scope, receive, send)

    def load(self) -> "DirectRoutes":
        """Returns the application."""
        if self._app is None:
            self._app = _import_framework()(*self._parts)
        return self._app


def _import_framework() -> "Callable[..., DirectRoutes]":
    from gateway.server.composition.framework import build_framework_app

    return build_framework_app
