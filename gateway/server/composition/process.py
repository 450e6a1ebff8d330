"""One process of the gateway: every part that doors share, made and joined, started and stopped."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import structlog

from adapters.a2a_client.push_wakeups import Doorbells
from adapters.upstream.egress import Egress
from adapters.upstream.host_names import SystemNames
from gateway.calls.authorizer import Ledger
from gateway.calls.broker import Broker
from gateway.calls.consent.account_connections import Connections
from gateway.calls.consent.approval_votes import Approvals
from gateway.calls.limits import open_files
from gateway.calls.limits.budgets import SECONDS as BUDGET_SECONDS
from gateway.calls.limits.budgets import Budgets
from gateway.calls.limits.open_streams import Places
from gateway.calls.outgoing.telemetry import UpstreamCalls
from gateway.calls.outgoing.upstreams import Outside
from gateway.calls.resumption.approved import Resuming
from gateway.calls.resumption.consented import Consented
from gateway.calls.resumption.takeover import Takeover
from gateway.calls.revocation.expired_grants import SWEEP_SECONDS as GRANTS_SECONDS
from gateway.calls.revocation.expired_grants import OldGrants
from gateway.calls.revocation.kill_switch import Archive, Killing
from gateway.calls.revocation.running import LOOK_SECONDS as HALT_SECONDS
from gateway.calls.revocation.spool import SPOOL_SECONDS, Spool
from gateway.calls.targets.front_door import FrontDoor
from gateway.ingress.http.asgi import Receive, Scope, Send
from gateway.ingress.http.empty_lists import EmptyLists
from gateway.ingress.http.errors import REASONS
from gateway.ingress.http.rejected_credentials import Refusals
from gateway.registration.onboarding import Onboarding
from gateway.registration.refresh import ASKED_SECONDS, ROUND_SECONDS, Refresh
from gateway.server.composition import authorization as rights
from gateway.server.composition import capacity, tracing, upstreams
from gateway.server.composition import sandbox as calculations
from gateway.server.composition.gc_freeze import settle
from gateway.server.composition.storage import open_storage
from gateway.server.configured import AGAIN_SECONDS, Planting, seeds_of
from gateway.server.drain import Drain, DrainTimes, take_steps
from gateway.server.periodic import Pulse
from gateway.server.reload import LOOK_SECONDS, KeyReload, PolicyReload
from gateway.server.settings import Settings, upstream_headers
from gateway.storage.database import bump
from gateway.storage.database_start import cause_of
from gateway.storage.files.data_folder import absent
from gateway.storage.mailbox import Mailbox
from gateway.storage.processes import Presence
from gateway.tasks.log import POLL_SECONDS, TaskLog, is_over
from gateway.tasks.turns.journal import TurnLimits
from gateway.tasks.turns.store import Memory
from gateway.tasks.webhooks.configs import Push
from gateway.tasks.webhooks.delivery import POST_SECONDS, Postman, Seal
from gateway.tasks.webhooks.outbox import Outbox
from gateway.telemetry import logs
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.spans import current_trace_id
from gateway.telemetry.worker_figures import WorkerFigures
from policies.audit.heads import HeadsFile
from policies.audit.log import Audit
from policies.authority import Authority, Request
from policies.callers import Caller, Callers
from policies.cedar.engine import PolicyEngine
from policies.delegation.grants import Grants
from policies.delegation.kills import Kills
from policies.delegation.rulings import Act, Grant
from policies.ids import new_id, now_us
from policies.tokens.hop_tokens import HopTokens, Minting
from policies.vault.store import DatabaseVault
from registry.drift.renewal import Renewal
from registry.health.checks import Probes
from registry.search import Search
from registry.seeds import Seeds
from registry.store import Registry

log = structlog.get_logger()
SWEEP_SECONDS = 60.0
WEBHOOK_LOOKUPS = 64  # host names of webhooks that are looked up at once; those of agents and servers have threads of their own
RESUME_SECONDS = 1.0
CHECKPOINT_SECONDS = 1.0
GAUGES_SECONDS = 1.0


class Gateway:
    """One process of the gateway: every part, made and joined. `start` and `stop` run in its event loop."""

    def __init__(self, settings: Settings, worker: WorkerFigures | None = None) -> None:
        self.settings = settings
        self._worker = worker
        self._absent = absent(settings.home, settings.database_url)
        logs.configure(settings.telemetry.log_level, current_trace_id)
        self.tracer = tracing.tracer(settings)
        self.opening: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.closing: list[Callable[[], Coroutine[Any, Any, None]]] = []  # doors, before the turns end
        self.parting: list[Callable[[], Coroutine[Any, Any, None]]] = []  # from agents, after them
        self.metrics = Metrics(REASONS | {"bad-envelope", "unknown-session", "canceled"}, worker)
        self.refusals = Refusals(time.monotonic)
        self.empty_lists = EmptyLists(settings.roles.keys(), self.refusals.note_empty)
        self.places = Places(all=open_files.raised().streams)
        self.process = new_id("p")
        storage = open_storage(settings, self.process)
        self.keys, self.database, self._locks = storage.keys, storage.database, storage.locks
        self.audit = Audit(new_id("a"), now_us)
        self.database.enlist(self.audit)
        self.egress = Egress(settings.allowed_targets, connections=(capacity.connections(settings), 0))
        self.registry = Registry(self.database, lambda batch: bump(batch, "registry"), new_id, now_us, self.audit.append)
        tools, schema_of = rights.known_tools(self.registry), rights.known_schema(self.registry)
        self.engine = PolicyEngine(settings.roles, Path(settings.policies) if settings.policies else None, tools, schema_of=schema_of)
        self.identity = rights.identity(settings, self.keys, self.egress)
        self._make_rights(settings)
        self.envelope = upstreams.envelope(settings)
        self.registry.sealing = self.envelope
        self.mailbox = Mailbox(self.database, now_us)
        self.vault = DatabaseVault(self.database, self.envelope, now_us)
        self.connections = Connections(self.database, self.envelope, settings.public_url, now_us, self.audit.append)
        self.own_client = upstreams.own_client(settings, self.keys)
        self.oauth = upstreams.oauth(self.egress, self.own_client, self.vault, self.connections)
        self.tools = upstreams.mcp_tools(settings, self.egress, self.oauth)
        self.isolation = calculations.furnish(settings, self.registry, self.tools)
        self.doorbells = Doorbells(settings.public_url)
        self.catalog = upstreams.catalog(settings, self.egress, self.parting, (self.doorbells, self.tools, self.oauth))
        self.onboarding = Onboarding(self.registry, upstreams.sources(settings, self.egress, self.tools, self.catalog), self.catalog.kinds)
        self.renewal = Renewal(self.database, self.registry)
        self.refresh = Refresh(self.registry, self.onboarding, self.renewal, probes := Probes(self.database, now_us))
        self.search = Search(self.database, self.registry)
        seeds = Seeds(self.registry, self.renewal, self.onboarding.survey, probes)
        self.planting = Planting(seeds, seeds_of(settings.agents, settings.servers, settings.virtual))
        self.greeting: Callable[[], None] | None = None
        self.memory = self._memory()
        self.webhook_egress = Egress(settings.allowed_targets, lookup=SystemNames(threads=WEBHOOK_LOOKUPS, queue=WEBHOOK_LOOKUPS))
        self.push = Push(self.database, self.webhook_egress.vet, new_id, now_us, self.envelope)
        self.outbox = Outbox(self.database, new_id, now_us, self.envelope)
        self.postman = Postman(self.outbox, self.memory.tasks, self.webhook_egress, Seal(self.keys, settings.public_url, time.time))
        self.limits = rights.limits(settings)
        self.slots = capacity.slots(settings, self.limits, self.authority)
        self.budgets = Budgets(self.database, self.audit, self.limits, now_us)
        outside = self.outside = self._outside()
        self.ledger = Ledger(self.authority, self.tokens, self.memory, outside, self.spool)
        self.front_door = FrontDoor(self.registry, self.database, self.authority.may)
        self.broker = _broker(self, outside)
        self.drain = Drain(DrainTimes(settings.server.drain, settings.server.drain_delay), self.broker.running)
        self.killing = self._killing()
        self._ask_people(outside)
        self.presence = Presence(self.database, self.process, now_us)
        self.pulse = Pulse(self.database, self.audit, self._heads(), self.presence)

    def _make_rights(self, settings: Settings) -> None:
        """Who may what, and what was taken back of it."""
        self.kills = Kills(self.database)
        self.metrics.gauge("kills", "Agents, servers and people that operators have stopped.", lambda: len(self.kills), "livemax")
        self.grants = Grants(self.database, time.time, is_over, self.kills)
        self.spool = Spool(settings.home, self.audit, self.grants, self.kills)
        around = rights.surroundings(settings, self.registry, lambda: self.database.fresh, self.kills)
        self.callers = Callers(self.identity, self.grants, around)
        self.authority = Authority(self.engine, around)
        self.policies = PolicyReload(self.database, self.engine, self.audit, self.authority.forget, lambda: self.registry.generation)
        running = rights.running_tasks(self.database)
        self.minting = Minting(settings.public_url, settings.identity.hop_ttl, new_id, time.time, around.ceiling_now, running)
        self.tokens = HopTokens(self.keys, self.identity, self.grants, self.minting)

    def _killing(self) -> Killing:
        archive = Archive(self.database, self.audit, self.spool, new_id, now_us)
        return Killing(archive, self.kills, self.broker.halt, self.registry, rights.issuers(self.settings))

    def _memory(self) -> Memory:
        tasks = TaskLog(self.database, now_us, self.process)
        limits = TurnLimits(self.settings.limits.turn_events, self.settings.limits.turn_bytes)
        return Memory(self.database, self.audit, self.grants, tasks, new_id, now_us, limits)

    def _ask_people(self, outside: Outside) -> None:
        """How people decide, and what goes on when they have, or when another process is gone."""
        self.approvals = Approvals(self.database, self.audit, now_us)
        self.takeover = Takeover(self.broker, self.ledger, self.authority, self.callers, memory=self.memory, outside=outside)
        self.resuming = Resuming(self.broker, self.ledger, self.callers, self.memory, outside)
        self.consented = Consented(self.broker, self.ledger, self.callers, self.memory, outside)

    def _heads(self) -> HeadsFile:
        heads = HeadsFile(self.settings.home / "audit.heads", self.keys, now_us)
        heads.compact()
        return heads

    def _outside(self) -> Outside:
        _gauge(self)
        limits, credentials = self.settings.limits, lambda target: upstream_headers(target.upstream)
        seconds, idle, absences = (limits.agent_timeout, limits.tool_timeout), limits.agent_idle_timeout, self.refresh.absences
        return Outside(self.catalog, self.tools, credentials, *seconds, self.limits, self.slots, absences, idle_timeout=idle)

    @property
    def made(self) -> dict[str, str]:
        """What this start made that was not there: where each is. Secrets are in some of it, and never here."""
        return {what: str(path) for what, path in self._absent.items() if path.exists()}

    async def keep(self, record: Mapping[str, object]) -> None:
        await self.database.write(lambda batch: self.audit.append(batch, record))

    async def _write_gauges(self) -> None:
        self.metrics.write_gauges()

    async def allowed(self, caller: Caller, act: Act, task_id: str = "") -> Grant:
        """The Grant for an act of administration, kept, with the task that it is about; raises Refused."""
        return await self.ledger.kept(caller, Request(act, caller.principal.tenant, task_id=task_id))

    async def lifespan(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI lifespan: start before the first request, stop after the last."""
        await receive()
        try:
            await self.start()
        except Exception as error:  # the process's root: whatever fails, the server is told and ends
            if problem := cause_of(error):
                log.error("start_failed", problem=problem, todo="interlock check")
            else:
                log.exception("start_failed")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        settle()
        self.drain.take_signals()
        await send({"type": "lifespan.startup.complete"})
        if self.greeting is not None:
            self.greeting()
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        """Opens the database, the audit chain and the loops."""
        self.database.start()
        await self.database.refresh()
        await self.registry.reload()
        await self.search.mend()
        await self.kills.reload()
        await self.database.write(lambda batch: self.audit.open(batch.connection, batch))
        for name in ("registry", "grants", "policies"):
            self.database.watch(name, self.authority.forget)
            self.database.watch(name, self.callers.forget)
        self.database.watch("grants", self.broker.halt.revoked)
        self.database.watch("kills", self.kills.reload)
        self.database.watch("policies", self.policies.take_up)
        self.database.watch("keys", self.identity.clear)
        self.database.watch("registry", self.registry.reload)
        await self.pulse.begin(self.drain.until_begun(self.takeover.round))
        self.pulse.repeat(LOOK_SECONDS, self.policies.look)
        self.pulse.repeat(LOOK_SECONDS, KeyReload(self.database, self.keys).look)
        await self.budgets.round()
        self.pulse.repeat(BUDGET_SECONDS, self.budgets.round)
        self.pulse.repeat(SWEEP_SECONDS, self.outside.sweep)
        self.pulse.repeat(SWEEP_SECONDS, self.places.sweep)
        self.pulse.repeat(HALT_SECONDS, lambda: self.broker.halt.look(self.kills))
        self.pulse.repeat(SWEEP_SECONDS, self.tools.sweep)
        self.pulse.repeat(SWEEP_SECONDS, self.approvals.sweep)
        self.pulse.repeat(RESUME_SECONDS, self.drain.until_begun(self.resuming.round))
        self.pulse.repeat(RESUME_SECONDS, self.drain.until_begun(self.consented.round))
        self.pulse.repeat(SWEEP_SECONDS, self.connections.sweep)
        self.pulse.repeat(GRANTS_SECONDS, OldGrants(self.database, now_us).sweep)
        self.pulse.repeat(CHECKPOINT_SECONDS, self.database.checkpoint)
        if not self.database.sqlite:
            self.pulse.repeat(POLL_SECONDS, self.memory.tasks.look)
        await self.planting.begin()
        self.pulse.repeat(AGAIN_SECONDS, self.planting.round)
        self.pulse.repeat(ROUND_SECONDS, self.refresh.round)
        self.pulse.repeat(ASKED_SECONDS, self.refresh.look_at_asked)
        self.pulse.repeat(POST_SECONDS, self.postman.round)
        self.pulse.repeat(SPOOL_SECONDS, lambda: self.spool.drain(self.database))
        if self._worker is not None:
            self.pulse.repeat(GAUGES_SECONDS, self._write_gauges)
        self._opened = [asyncio.create_task(each()) for each in self.opening]  # nobody waits until they are ready

    async def stop(self) -> None:
        """Lets turns under way end within the grace of a drain, keeps what is left, and lets go of everything, though a step fails."""
        await take_steps(*self._opened)
        await take_steps(self.drain.finish())
        await take_steps(*(close() for close in self.closing))
        await take_steps(self.broker.close())
        await take_steps(*(part() for part in self.parting))
        upstreams_last = (self.postman.close, self.tools.close, self.webhook_egress.close, self.egress.close)
        for close in (self.pulse.end, self.budgets.close, self.refresh.close, self.planting.close, *upstreams_last):
            await take_steps(close())
        try:
            self.database.close()
        finally:
            await take_steps(self.pulse.keep_last_head())
            if self.tracer is not None:
                self.tracer.close()
            self._locks.close()


def _broker(gateway: Gateway, outside: Outside) -> Broker:
    calls = UpstreamCalls(gateway.metrics, gateway.tracer)
    return Broker(gateway.registry, gateway.ledger, gateway.memory, outside, gateway.front_door, calls=calls)


def _gauge(gateway: Gateway) -> None:
    """Figures that are read when an operator asks for them."""
    resilience, metrics = gateway.catalog.resilience, gateway.metrics
    metrics.gauge("agent_retries", "Calls of agents that were tried again.", lambda: resilience.retries)
    metrics.gauge("agents_ejected", "Endpoints of agents that are left alone for a while.", lambda: resilience.ejected)
    metrics.gauge("streams", "Streams that are open now.", lambda: gateway.places.open)
    metrics.gauge("calls_under_way", "Turns and calls that are under way.", lambda: gateway.broker.halt.under_way)
    metrics.gauge("calls_waiting", "Turns and calls that wait for a slot.", lambda: gateway.slots.waiting)
