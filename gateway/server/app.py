"""Runs the gateway: the parts of gateway/server/composition behind one ASGI application."""

import math
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import uvicorn

from gateway.ingress.http.asgi import Receive, Scope, Send
from gateway.ingress.http.authentication import Admission, hosts_of
from gateway.ingress.http.cors import Cors
from gateway.ingress.http.request_trace import Visits
from gateway.server.banner import greet
from gateway.server.composition import mcp_server as tool_door
from gateway.server.composition import protocol_servers as doors
from gateway.server.composition.capacity import client_limits
from gateway.server.composition.framework import client_authentication, proofs, rest
from gateway.server.composition.process import Gateway
from gateway.server.composition.storage import refuse_wrong_database
from gateway.server.drain import SIGNALS, SPARE_SECONDS
from gateway.server.router import App, Doors, Front
from gateway.server.settings import Settings
from gateway.server.sockets.client_limits import STATE, Connections
from gateway.server.watchdog import BUCKETS as BLOCKED_BUCKETS
from gateway.server.watchdog import Watchdog
from gateway.storage.database import Database, engine_for
from gateway.telemetry.worker_figures import VARIABLE, FiguresFolder, WorkerFigures
from policies.keys.signing import SigningKeys

SETTINGS = "INTERLOCK_SERVING"
NOT_STARTED = 3
log = structlog.get_logger()


def serve(settings: Settings) -> None:
    """Runs the gateway until a signal. With several workers each builds its own, from the same settings.

    Raises DatabaseUnusable, HomeInUse, KeysUnusable, BadPolicy and ValueError for a gateway that can't be built.
    """
    os.environ[SETTINGS] = settings.model_dump_json()
    for number in SIGNALS:
        signal.signal(number, _stopped)
    if settings.workers > 1:
        _check_database(settings)
        _run_workers(settings)
        return
    gateway = Gateway(settings)
    gateway.drain.takes_signals = True
    server = _Server(uvicorn.Config(application(gateway), **_options(settings)), gateway)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # uvicorn takes them while it runs, and raises what it got once more at its end
    server.run()
    if not server.started:
        sys.exit(NOT_STARTED)


def _run_workers(settings: Settings) -> None:
    """Runs the workers until a signal. They share their figures in a folder of the home."""
    figures = FiguresFolder(settings.home)
    os.environ[VARIABLE] = str(figures.path)
    try:
        uvicorn.run("gateway.server.app:from_environment", factory=True, workers=settings.workers, **_options(settings))
    finally:
        figures.remove()


def _stopped(_number: int, _frame: FrameType | None) -> None:
    """A signal that comes before anything is served."""
    raise SystemExit(0)


def _check_database(settings: Settings) -> None:
    """Checks the database before the workers start, so that one process reports a problem. Raises DatabaseUnusable."""
    database = Database(engine_for(settings.database_url))
    try:
        refuse_wrong_database(database, settings, SigningKeys.open(settings.home))
    finally:
        database.close()


class _Server(uvicorn.Server):
    """One that greets, once it can be reached."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            greet(self._gateway)


def _options(settings: Settings) -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "loop": "uvloop",
        "http": "gateway.server.sockets.http_protocol:HttpProtocol",
        "ws": "none",
        "proxy_headers": bool(settings.server.trusted_proxies),
        "forwarded_allow_ips": settings.server.trusted_proxies,
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "timeout_graceful_shutdown": math.ceil(settings.server.drain + SPARE_SECONDS),
        "timeout_keep_alive": math.ceil(settings.server.idle_timeout),
    }


def from_environment() -> Front:
    """What a worker serves."""
    gateway = Gateway(Settings.model_validate_json(os.environ[SETTINGS]), WorkerFigures(Path(os.environ[VARIABLE])))
    gateway.drain.takes_signals = True
    gateway.greeting = lambda: greet(gateway)  # the sockets are open before the workers are there
    return application(gateway)


def _with_connections(gateway: Gateway) -> App:
    """The lifespan of `gateway`, whose state tells the sockets what connections of clients may cost."""
    dropped = gateway.metrics.counter("connections_dropped", "Connections of clients that a limit closed.", "reason")
    connections = Connections(client_limits(gateway.settings), dropped)
    gateway.metrics.gauge("connections", "Open connections of clients.", lambda: connections.open)

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})[STATE] = connections
        await gateway.lifespan(scope, receive, send)

    return lifespan


def application(gateway: Gateway) -> Front:
    """The ASGI application."""
    settings, url = gateway.settings, gateway.settings.public_url
    clients = client_authentication(gateway)
    shown = proofs(gateway, clients)
    hosts, cors = hosts_of(url, settings.host, settings.port), Cors(settings.server.cors_origins)
    admission = Admission(gateway.callers, url, hosts, gateway.refusals.note, shown, cors=cors)
    visits, operations = Visits(gateway.tracer, gateway.metrics), doors.operations_of(gateway)
    agents = doors.agent_door(gateway, admission, operations, visits)
    administration = rest(gateway, admission, clients, shown)
    joined = Doors(
        agents, tool_door.endpoint(gateway, admission), doors.health(gateway, admission), administration, _with_connections(gateway)
    )
    watchdog = Watchdog(gateway.metrics.duration("event_loop_blocked", "How long the event loop stood still.", BLOCKED_BUCKETS))
    gateway.opening.append(watchdog.start)
    gateway.closing.append(watchdog.stop)
    if settings.grpc_port:
        gateway.opening.append(lambda: doors.open_grpc(gateway, admission, operations, visits))
    return Front(admission, joined, visits, gateway.drain)
