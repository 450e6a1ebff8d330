"""Makes the built-in server for calculations, where the settings and this machine have it."""

import os
import time

import structlog

from adapters.sandbox.calculation import KIND, Calculator
from adapters.sandbox.isolation import Isolation, isolation
from adapters.sandbox.tools import SandboxTools, registration
from adapters.tool_servers import McpTools
from gateway.server.settings import Settings
from registry.store import Registry

WORKERS_MAX = 4
log = structlog.get_logger()


def wanted(settings: Settings, found: Isolation) -> bool:
    """Whether calculations are offered with what is found here."""
    return found.works and settings.sandbox != "off" and (found.strong or settings.sandbox == "on" or settings.development)


def workers() -> int:
    """Calculations that run at once."""
    return min(WORKERS_MAX, os.cpu_count() or 1)


def furnish(settings: Settings, registry: Registry, tools: McpTools) -> Isolation | None:
    """Has the registry know the server, and calls of it made. The interpreter's library is loaded at the first."""
    if settings.sandbox == "off":
        return None
    found = isolation()
    if not wanted(settings, found):
        log.info("sandbox_unavailable", why=found.why)
        return None

    def made() -> Calculator:
        from adapters.sandbox.worker import Sandbox

        return Sandbox(found, settings.home / KIND, workers())

    tools.sandbox = SandboxTools(made, time.monotonic)
    registry.build_in(registration(found.kind))
    if not found.strong:
        log.warning("sandbox_weaker", isolation=found.kind, why=found.why)
    return found
