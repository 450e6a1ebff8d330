"""Makes the doors of the protocols."""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.a2a_server.cards import Cards, Publishing
from gateway.a2a_server.door import AgentDoor
from gateway.a2a_server.extended import ExtendedCards
from gateway.a2a_server.jsonrpc import JsonRpc
from gateway.a2a_server.notifications import Notifications
from gateway.a2a_server.operations import Offered, Operations
from gateway.a2a_server.rest import Rest
from gateway.admission import Admission
from gateway.asgi import Scope
from gateway.assembly.cards import PublishedCards
from gateway.assembly.process import Gateway
from gateway.decisions import READ_AUDIT
from gateway.health import Check, Health
from gateway.scrape_token import ScrapeToken
from gateway.settings import given_text
from gateway.task_pages import TaskPages
from gateway.task_reader import TaskReader
from gateway.visits import Visits
from policies.ids import now_us

if TYPE_CHECKING:
    from gateway.a2a_server.grpc import GrpcDoor


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
    from gateway.a2a_server.grpc import GrpcDoor

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
