"""Builds the bounds on calls and connections of one process, from the settings and the system's limit of open files; and their costs."""

import time
from decimal import Decimal
from functools import partial

import structlog

from adapters.sandbox.calculation import SANDBOX_KIND as SANDBOX
from gateway.calls.costs.causing_runs import CausingRuns
from gateway.calls.costs.contract_prices import TokenPrice
from gateway.calls.costs.estimates import CostEstimates, ReservationBounds
from gateway.calls.costs.ledger import CostLedger, CostReports, Currency, PriceTokens
from gateway.calls.costs.run_shares import RunShares
from gateway.calls.limits import open_files
from gateway.calls.limits.meters import CallLimits
from gateway.calls.limits.slots import SlotLimits, Slots
from gateway.server.composition.built_in import sandbox as calculations
from gateway.server.sections.costs import TokenPriceSettings
from gateway.server.settings import Settings
from gateway.server.sockets.client_limits import ClientLimits
from gateway.storage.database import Database
from gateway.tasks.watcher import WATCHED_MAX
from gateway.telemetry.metrics import Metrics
from policies.audit.log import AuditLog
from policies.authority import Authority
from policies.ids import now_us
from registry.cards.prices import parse_price
from registry.store import Registry, find_workflow

log = structlog.get_logger()


def build_slots(settings: Settings, limits: CallLimits, authority: Authority) -> Slots:
    """Builds the slots of turns and calls. Their refusals are reported like refusals by limits."""
    calls = _calls_max(settings)
    sizes = SlotLimits(calls, min(settings.limits.calls_per_upstream, calls), wait_seconds=settings.limits.queue_seconds)
    return Slots(sizes, time.monotonic, {SANDBOX: calculations.worker_count()}, authority.can_see, limits.report_refusal)


def connections_max(settings: Settings) -> int:
    """Returns the maximum of open connections to upstreams: two for each call, and one for each watched task."""
    return 2 * _calls_max(settings) + WATCHED_MAX


def client_limits(settings: Settings) -> ClientLimits:
    """Builds the limits of client connections."""
    server = settings.server
    return ClientLimits(
        header_bytes=server.max_headers,
        header_seconds=server.header_timeout,
        body_seconds=server.body_timeout,
        idle_seconds=server.idle_timeout,
        send_seconds=server.send_timeout,
        connections=min(server.max_connections, open_files.raise_limit().connections),
    )


def build_costs(
    settings: Settings, limits: CallLimits, database: Database, registry: Registry, *, audit: AuditLog, metrics: Metrics
) -> CostLedger:
    """Builds the ledger of costs. It loads the price list of models when it prices the first usage, since that takes half a second."""
    said, code = settings.costs, settings.costs.currency
    bounds = ReservationBounds(parse_price(said.reservation), parse_price(said.reservation_max))
    count = metrics.counter("costs_quarantined", "Calls that were charged by their price or reservation instead of their report.", "reason")
    return CostLedger(
        limits,
        database,
        _load_prices,
        currency=Currency(code, Decimal(1) if code == "USD" else said.usd_rate),
        run_shares=RunShares(limits, partial(find_workflow, registry), CausingRuns(database, time.monotonic)),
        estimates=CostEstimates(database, time.monotonic, bounds),
        now=now_us,
        clock=time.monotonic,
        reports=CostReports(said.tokens_max, count, audit.record),
        contract_prices={model: _token_price(each) for model, each in said.models.items()},
    )


def _token_price(said: TokenPriceSettings) -> TokenPrice:
    return TokenPrice(*(parse_price(text) for text in (said.input, said.output, said.input if said.cached is None else said.cached)))


def _load_prices() -> PriceTokens:
    from gateway.calls.costs.token_prices import price_in_dollars

    return price_in_dollars


def _calls_max(settings: Settings) -> int:
    room = open_files.raise_limit()
    if room.calls_max < settings.limits.calls:
        log.warning("open_files_few", limit=room.limit, calls=room.calls_max)
    return min(settings.limits.calls, room.calls_max)
