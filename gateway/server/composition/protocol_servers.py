"""Makes the doors of the protocols."""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.audit.decisions import READ_AUDIT
from gateway.ingress.a2a_server.agent_notifications import Notifications
from gateway.ingress.a2a_server.bindings.jsonrpc import JsonRpc
from gateway.ingress.a2a_server.bindings.rest import Rest
from gateway.ingress.a2a_server.cards import Cards, Publishing
from gateway.ingress.a2a_server.door import AgentDoor
from gateway.ingress.a2a_server.extended_cards import ExtendedCards
from gateway.ingress.a2a_server.operations import Offered, Operations
from gateway.ingress.http.asgi import Scope
from gateway.ingress.http.authentication import Admission
from gateway.ingress.http.request_trace import Visits
from gateway.ingress.http.scrape_token import ScrapeToken
from gateway.server.composition.cards import PublishedCards
from gateway.server.composition.process import Gateway
from gateway.server.health import Check, Health
from gateway.server.settings import given_text
from gateway.tasks.pages import TaskPages
from gateway.tasks.reader import TaskReader
from policies.ids import now_us

if TYPE_CHECKING:
    from gateway.ingress.a2a_server.bindings.grpc import GrpcDoor


def operations_of(gateway: Gateway) -> Operations:
    """What every binding of A2A offers."""
    extended = ExtendedCards(PublishedCards(gateway).extended, gateway.front_door, gateway.authority.may)
    offered = Offered(TaskReader(gateway.memory.tasks), TaskPages(gateway.database), gateway.push, extended.extended_card, gateway.places)
    return Operations(gateway.broker, offered)


def agent_door(gateway: Gateway, admission: Admission, operations: Operations, visits: Visits) -> AgentDoor:
    size = gateway.settings.server.max_body
    front_door = replace(gateway.front_door.registration("default"), created=now_us(), updated=now_us())
    published = PublishedCards(gateway)
    cards = Cards(admission, gateway.registry, front_door, Publishing(published.newer, published.united, gateway.keys))
    jsonrpc, rest = JsonRpc(admission, operations, size), Rest(admission, operations, size)
    return AgentDoor(jsonrpc, rest, cards, Notifications(gateway.doorbells), visits)


def _grpc_door() -> "type[GrpcDoor]":
    from gateway.ingress.a2a_server.bindings.grpc import GrpcDoor

    return GrpcDoor


async def open_grpc(gateway: Gateway, admission: Admission, operations: Operations, visits: Visits) -> None:
    """The door for gRPC, whose libraries are loaded only where it is on, beside the first requests of other doors."""
    made = await asyncio.to_thread(_grpc_door)
    settings, door = gateway.settings, made(admission, operations, visits, gateway.settings.server.max_body)
    gateway.closing.append(door.close)
    gateway.drain.end_streams.append(door.close)
    await door.open(settings.host, settings.grpc_port, shared=settings.workers > 1)


def health(gateway: Gateway, admission: Admission) -> Health:
    checks: dict[str, Check] = {
        "serving": lambda: not gateway.drain.begun,
        "database": lambda: gateway.database.fresh and gateway.database.writable,
        "policies": lambda: gateway.engine.healthy,
    }

    reference = gateway.settings.telemetry.metrics_token
    scraper = ScrapeToken(lambda: given_text(reference)) if reference else None

    async def may_read(scope: Scope) -> bool:
        if scraper is not None and scraper.is_shown(scope):
            return True
        return await admission.admits(scope, "/metrics", lambda caller: gateway.authority.may(caller, READ_AUDIT))

    return Health(checks, gateway.metrics.render, may_read, challenge=admission.challenge(""))
