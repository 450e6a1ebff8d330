"""Makes the built-in server for calculations, where the settings and this machine have it."""

import os
import time

import structlog

from adapters.sandbox.calculation import SANDBOX_KIND, Calculator
from adapters.sandbox.isolation import Isolation, find_isolation
from adapters.sandbox.tools import SandboxTools, sandbox_registration
from adapters.tool_servers import ToolServerClient
from gateway.server.settings import Settings
from registry.store import Registry

WORKERS_MAX = 4
log = structlog.get_logger()


def is_offered(settings: Settings, isolation: Isolation) -> bool:
    """Whether calculations are offered with what is found here."""
    return (
        isolation.is_available
        and settings.sandbox != "off"
        and (isolation.is_strong or settings.sandbox == "on" or settings.is_development)
    )


def worker_count() -> int:
    """Calculations that run at once."""
    return min(WORKERS_MAX, os.cpu_count() or 1)


def build_sandbox(settings: Settings, registry: Registry, tools: ToolServerClient) -> Isolation | None:
    """Has the registry know the server, and calls of it made. The interpreter's library is loaded at the first."""
    if settings.sandbox == "off":
        return None
    found = find_isolation()
    if not is_offered(settings, found):
        log.info("sandbox_unavailable", why=found.weakness)
        return None

    def build_calculator() -> Calculator:
        from adapters.sandbox.worker import Sandbox

        return Sandbox(found, settings.home / SANDBOX_KIND, worker_count())

    tools.sandbox = SandboxTools(build_calculator, time.monotonic)
    registry.add_built_in(sandbox_registration(found.kind))
    if not found.is_strong:
        log.warning("sandbox_weaker", isolation=found.kind, why=found.weakness)
    return found
