"""Builds the registry, and its built-in server for calculations if the settings and this machine allow it."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from adapters.sandbox.calculation import SANDBOX_KIND, Calculator
from adapters.sandbox.isolation import Isolation, find_isolation
from adapters.sandbox.tools import SandboxTools, sandbox_registration
from gateway.server.settings import Settings
from gateway.storage.database import Database, raise_epoch
from policies.ids import new_id, now_us
from policies.vault.envelope import EnvelopeEncryption
from registry.cards.card import Registration
from registry.rows import RegistrationRows
from registry.store import Registry

WORKERS_MAX = 4
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OfferedSandbox:
    """The built-in server: how its calculations are isolated, its tools, and its registration."""

    isolation: Isolation
    tools: SandboxTools
    registration: Registration


def is_offered(settings: Settings, isolation: Isolation) -> bool:
    """Returns whether calculations are offered with the isolation that this machine has."""
    return (
        isolation.is_available
        and settings.sandbox != "off"
        and (isolation.is_strong or settings.sandbox == "on" or settings.is_development)
    )


def worker_count() -> int:
    """Returns the number of calculations that run at the same time."""
    return min(WORKERS_MAX, os.cpu_count() or 1)


def build_sandbox(settings: Settings) -> OfferedSandbox | None:
    """Returns the built-in server, None if it is not offered. The first call loads the interpreter."""
    if settings.sandbox == "off":
        return None
    found = find_isolation()
    if not is_offered(settings, found):
        log.info("sandbox_unavailable", why=found.weakness)
        return None

    def build_calculator() -> Calculator:
        from adapters.sandbox.worker import Sandbox

        return Sandbox(found, settings.home / SANDBOX_KIND, worker_count())

    if not found.is_strong:
        log.warning("sandbox_weaker", isolation=found.kind, why=found.weakness)
    return OfferedSandbox(found, SandboxTools(build_calculator, time.monotonic), sandbox_registration(found.kind))


def build_registry(
    database: Database, record: Callable[[Any, Mapping[str, Any]], None], envelope: EnvelopeEncryption, sandbox: OfferedSandbox | None
) -> Registry:
    """Builds the registry, which has the built-in server in every tenant. `record` writes the audit record of a change in its commit."""
    built_in = () if sandbox is None else (sandbox.registration,)
    rows = RegistrationRows(envelope)
    return Registry(database, partial(raise_epoch, name="registry"), new_id, now_us, record, rows=rows, built_in=built_in)
