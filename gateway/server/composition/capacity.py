"""Makes what shares out the calls of one process, as many as the settings say and the system's open files allow."""

import time

import structlog

from adapters.sandbox.calculation import KIND as SANDBOX
from gateway.calls.limits import open_files
from gateway.calls.limits.limits import Limits
from gateway.calls.limits.slots import SlotLimits, Slots
from gateway.server.composition import sandbox as calculations
from gateway.server.settings import Settings
from gateway.server.sockets.client_limits import ClientLimits
from gateway.tasks.watcher import WATCHED_MAX
from policies.authority import Authority

log = structlog.get_logger()


def slots(settings: Settings, limits: Limits, authority: Authority) -> Slots:
    """The slots of turns and calls, whose refusals are reported as those by limits are."""
    calls = _calls(settings)
    sizes = SlotLimits(calls, min(settings.limits.calls_per_upstream, calls), seconds=settings.limits.queue_seconds)
    return Slots(sizes, time.monotonic, {SANDBOX: calculations.workers()}, authority.sees, limits.report)


def connections(settings: Settings) -> int:
    """A bound behind all others: two for each call, and one for each task that waits and is watched."""
    return 2 * _calls(settings) + WATCHED_MAX


def client_limits(settings: Settings) -> ClientLimits:
    """What connections of clients may cost."""
    server = settings.server
    return ClientLimits(
        header_bytes=server.max_headers,
        header_seconds=server.header_timeout,
        body_seconds=server.body_timeout,
        idle_seconds=server.idle_timeout,
        send_seconds=server.send_timeout,
        connections=min(server.max_connections, open_files.raised().connections),
    )


def _calls(settings: Settings) -> int:
    room = open_files.raised()
    if room.calls < settings.limits.calls:
        log.warning("open_files_few", limit=room.limit, calls=room.calls)
    return min(settings.limits.calls, room.calls)
