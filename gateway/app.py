"""Runs the gateway: the parts of gateway/assembly behind one ASGI application."""

import os

import uvicorn

from gateway.admission import Admission, hosts_of
from gateway.assembly import doors, tool_door
from gateway.assembly.process import Gateway
from gateway.assembly.rest import rest
from gateway.front import Doors, Front
from gateway.settings import Settings
from gateway.visits import Visits

SETTINGS = "INTERLOCK_SERVING"


def serve(settings: Settings) -> None:
    """Runs the gateway until a signal. With several workers each builds its own, from the same settings.

    Raises HomeInUse, KeysUnusable, BadPolicy and ValueError for a gateway that can't be built.
    """
    os.environ[SETTINGS] = settings.model_dump_json()
    alone = settings.workers == 1
    uvicorn.run(
        application(Gateway(settings)) if alone else "gateway.app:from_environment",
        factory=not alone,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop",
        http="httptools",
        ws="none",
        proxy_headers=bool(settings.server.trusted_proxies),
        forwarded_allow_ips=settings.server.trusted_proxies,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=10,
    )


def from_environment() -> Front:
    """What a worker serves."""
    return application(Gateway(Settings.model_validate_json(os.environ[SETTINGS])))


def application(gateway: Gateway) -> Front:
    """The ASGI application."""
    settings, url = gateway.settings, gateway.settings.public_url
    admission = Admission(gateway.authority, url, hosts_of(url, settings.host, settings.port), gateway.refusals.note)
    visits, operations = Visits(doors.tracing(gateway), gateway.metrics), doors.operations_of(gateway)
    agents = doors.agent_door(gateway, admission, operations, visits)
    joined = Doors(
        agents, tool_door.endpoint(gateway, admission), doors.health(gateway, admission), rest(gateway, admission), gateway.lifespan
    )
    if settings.grpc_port:
        gateway.opening.append(lambda: doors.open_grpc(gateway, admission, operations, visits))
    return Front(admission, joined, visits)
