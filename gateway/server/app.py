"""Runs the gateway: the parts of gateway/server/composition behind one ASGI application."""

import asyncio
import math
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
import uvicorn
from uvicorn.supervisors import Multiprocess

from gateway.concurrency.background import run_in_background
from gateway.ingress.http.asgi import App, Receive, Scope, Send
from gateway.ingress.http.authentication import RequestAuthentication, own_hosts
from gateway.ingress.http.cors import Cors
from gateway.ingress.http.request_trace import RequestTraces
from gateway.server.banner import print_banner
from gateway.server.composition import mcp_server, protocol_servers
from gateway.server.composition.capacity import client_limits
from gateway.server.composition.process import Gateway
from gateway.server.composition.protocol_servers import build_admission
from gateway.server.composition.storage import migrate_ahead, refuse_wrong_database
from gateway.server.drain import SIGNALS, SPARE_SECONDS
from gateway.server.router import Handlers, Router
from gateway.server.settings import Settings
from gateway.server.sockets.admission.admitted_requests import RequestAdmission
from gateway.server.sockets.client_limits import STATE, Connections
from gateway.server.sockets.readiness import report_ready
from gateway.server.watchdog import BLOCKED_BUCKETS as BLOCKED_BUCKETS
from gateway.server.watchdog import LAG_BUCKETS, Watchdog
from gateway.storage.database import Database, engine_for
from gateway.storage.files.start_failures import START_ERRORS, describe_start_failure
from gateway.telemetry.logs import configure_logging
from gateway.telemetry.worker_figures import VARIABLE, FiguresFolder, WorkerFigures
from policies.keys.signing import SigningKeys

SETTINGS_VARIABLE = "INTERLOCK_SERVING"
NOT_STARTED_EXIT_CODE = 3
UNUSABLE_EXIT_CODE = 78  # EX_CONFIG: trying again does not help
SECOND_SIGNAL_SECONDS = 0.1  # after the first one, since a process may take two that come at once for one
READY_PING_SECONDS = 0.2  # for which the parent waits for a worker that may not have begun to answer
log = structlog.get_logger()


def serve(settings: Settings) -> None:
    """Runs the gateway until a signal. With several workers, each constructs its own gateway from the same settings.

    Raises START_ERRORS and ValueError for a gateway that can't be constructed, and SystemExit for one that could not start. Of several
    workers, it raises SystemExit for both.
    """
    configure_logging(settings.telemetry.log_level)
    os.environ[SETTINGS_VARIABLE] = settings.model_dump_json()
    for number in SIGNALS:
        signal.signal(number, _exit_on_signal)
    migrate_ahead(settings)
    if settings.workers > 1:
        _check_database(settings)
        _run_workers(settings)
        return
    gateway = Gateway(settings, takes_signals=True)
    server = _BannerServer(uvicorn.Config(build_application(gateway), **_uvicorn_options(settings)), gateway)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # uvicorn handles signals while it runs, and raises a captured one again when it ends
    server.run()
    if not server.started:
        sys.exit(NOT_STARTED_EXIT_CODE)


def _run_workers(settings: Settings) -> None:
    """Runs the workers until a signal. They share their metrics in a folder of the home directory."""
    figures = FiguresFolder(settings.home)
    os.environ[VARIABLE] = str(figures.path)
    application = "gateway.server.app:build_worker_application"
    config = uvicorn.Config(application, factory=True, workers=settings.workers, **_uvicorn_options(settings))
    try:
        workers = _Workers(config, sockets=[config.bind_socket()])
        workers.run()
    finally:
        figures.remove()
    if workers.exit_code:
        sys.exit(workers.exit_code)


def _exit_on_signal(_number: int, _frame: FrameType | None) -> None:
    """Exits on a signal that arrives before the gateway serves requests."""
    raise SystemExit(0)


def _check_database(settings: Settings) -> None:
    """Checks the database before the workers start, so that one process reports a problem. Raises DatabaseUnusable."""
    database = Database(engine_for(settings.database_url))
    try:
        refuse_wrong_database(database, settings, SigningKeys.open(settings.home))
    finally:
        database.close()


class _Workers(Multiprocess):
    """uvicorn's workers, which replace each other. If one ends before any of them serves, all end: it would end again and again.

    Logs each worker that ends unbidden. `exit_code` is that of the parent: 0 after a signal.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self.exit_code = 0
        self._is_serving = False
        self._is_interrupted = False

    def handle_int(self) -> None:
        self._is_interrupted = True
        super().handle_int()

    def terminate_all(self) -> None:
        """Sends the workers SIGTERM, and after SIGINT a second one, which skips the delay of their drain.

        SIGINT itself would cut their requests where the terminal has sent it to them too.
        """
        super().terminate_all()
        if self._is_interrupted:
            time.sleep(SECOND_SIGNAL_SECONDS)
            for process in self.processes:
                if process.exitcode is None and process.pid is not None:
                    os.kill(process.pid, signal.SIGTERM)

    def keep_subprocess_alive(self) -> None:
        if self.should_exit.is_set():
            return
        workers = list(self.processes)
        self._is_serving = self._is_serving or any(process.is_ready(READY_PING_SECONDS) for process in self.processes)
        if self._is_serving:
            super().keep_subprocess_alive()
            if self.should_exit.is_set():  # the replacement of a worker could not start
                self.exit_code = NOT_STARTED_EXIT_CODE
        elif ended := [process.exitcode for process in self.processes if process.exitcode is not None]:
            self.exit_code = UNUSABLE_EXIT_CODE if UNUSABLE_EXIT_CODE in ended else NOT_STARTED_EXIT_CODE
            self.should_exit.set()
        for process in workers:
            if process.exitcode is not None:
                _log_worker_end(process.pid, process.exitcode)


def _log_worker_end(pid: int | None, exit_code: int) -> None:
    """Logs that a worker has ended: with its exit code, or the signal that killed it, of which the worker itself says nothing."""
    ending = {"exit_code": exit_code} if exit_code >= 0 else {"signal": signal.Signals(-exit_code).name}
    log.error("worker_ended", pid=pid, **ending)


class _BannerServer(uvicorn.Server):
    """A uvicorn server that says that it serves once it accepts connections."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print_banner(self._gateway)
            report_ready(f"serves {self._gateway.settings.public_url}", os.environ)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Closes the listener at once, and connections with their answers. uvicorn does it up to 0.1 seconds later."""
        for server in getattr(self, "servers", ()):  # uvicorn sets it when it starts
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        super().handle_exit(sig, frame)


def _uvicorn_options(settings: Settings) -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "loop": "gateway.server.sockets.accepting:BatchAcceptingLoop",
        "http": "gateway.server.sockets.http_protocol:HttpProtocol",
        "ws": "none",
        "proxy_headers": bool(settings.server.trusted_proxies),
        "forwarded_allow_ips": settings.server.trusted_proxies,
        "access_log": False,
        "log_config": None,
        "server_header": False,
        "date_header": False,  # gateway/server/sockets/answer_heads.py
        "timeout_graceful_shutdown": math.ceil(settings.server.drain + SPARE_SECONDS),
        "timeout_keep_alive": math.ceil(settings.server.idle_timeout),
    }


def build_worker_application() -> Router:
    """Returns the ASGI application of one worker. Logs what prevents its start, and exits: with UNUSABLE_EXIT_CODE if that can't pass."""
    settings, figures = Settings.model_validate_json(os.environ[SETTINGS_VARIABLE]), WorkerFigures(Path(os.environ[VARIABLE]))
    try:
        gateway = Gateway(settings, figures, takes_signals=True)
    except START_ERRORS as error:
        failure = describe_start_failure(error, settings.home, settings.policies)
        log.error("start_failed", problem=failure.problem, todo=failure.todo)
        sys.exit(NOT_STARTED_EXIT_CODE if failure.may_pass else UNUSABLE_EXIT_CODE)

    def announce() -> None:
        print_banner(gateway)
        run_in_background(_report_once_listening(settings), "readiness_not_reported")

    return build_application(gateway, announce)


async def _report_once_listening(settings: Settings) -> None:
    """Tells the service manager that the gateway serves, once its port accepts. uvicorn opens a worker's listener after the start."""
    while True:
        try:
            _, writer = await asyncio.open_connection(settings.host, settings.port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            report_ready(f"serves {settings.public_url}", os.environ)
            return


def _build_lifespan(gateway: Gateway, admission: RequestAdmission, on_started: Callable[[], None]) -> App:
    """Returns the lifespan of `gateway`, with the connection limits in its state for the sockets."""
    dropped = gateway.metrics.counter("connections_dropped", "Client connections closed because of a limit.", "reason")
    connections = Connections(client_limits(gateway.settings), dropped, admission)
    gateway.metrics.add_gauge("connections", "Open client connections.", lambda: connections.open)

    async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})[STATE] = connections
        await gateway.lifespan(receive, send, on_started)

    return lifespan


def build_application(gateway: Gateway, on_started: Callable[[], None] = lambda: None) -> Router:
    """Returns the ASGI application. It calls `on_started` once the gateway has started."""
    settings, url = gateway.settings, gateway.settings.public_url
    clients = protocol_servers.build_client_authentication(gateway)
    proofs = protocol_servers.build_proofs(gateway, clients)
    hosts, cors = own_hosts(url, settings.host, settings.port), Cors(settings.server.cors_origins) if settings.server.cors_origins else None
    authentication = RequestAuthentication(
        gateway.rulings.caller_resolver,
        url,
        hosts,
        gateway.rejected_credentials.log_rejection,
        proofs,
        cors=cors,
        default_scope=" ".join(settings.sign_in.scopes) if settings.has_sign_in else "",
    )
    request_traces, operations = RequestTraces(gateway.tracer, gateway.metrics), protocol_servers.build_operations(gateway)
    agents = protocol_servers.build_a2a_server(gateway, authentication, operations, request_traces)
    admission = build_admission(gateway)
    handlers = Handlers(
        agents,
        mcp_server.build_endpoint(gateway, authentication),
        protocol_servers.build_health(gateway, authentication),
        protocol_servers.LazyFramework(gateway, authentication, clients, proofs),
        _build_lifespan(gateway, admission, on_started),
    )
    blocked = gateway.metrics.add_histogram("event_loop_blocked", "How long the event loop was blocked.", BLOCKED_BUCKETS)
    lag = gateway.metrics.add_histogram("event_loop_lag", "How long the event loop took to respond to a check.", LAG_BUCKETS)
    watchdog = Watchdog(blocked, observe_lag=lag)
    gateway.lifecycle.on_start(watchdog.start)
    gateway.lifecycle.on_stop(watchdog.stop)
    if settings.grpc_port:
        gateway.lifecycle.on_start(
            lambda: protocol_servers.open_grpc_server(gateway, authentication, operations, request_traces, admission.admit_call)
        )
    return Router(authentication, handlers, request_traces, gateway.drain)
