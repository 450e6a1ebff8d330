"""One process of the gateway: builds, starts and stops the parts that all protocol servers share."""

import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import structlog

from adapters.a2a_client.push_wakeups import PushWakeups
from adapters.tool_servers import ServerListChanges
from adapters.upstream.egress import Egress
from gateway.calls.authorizer import CallAuthorizer
from gateway.calls.consent.account_connections import AccountConnections
from gateway.calls.consent.approval_votes import Approvals
from gateway.calls.costs.expiry import ExpiredReservations, OldCosts
from gateway.calls.costs.reports.report import read_sums
from gateway.calls.costs.reports.stored_sums import StoredSums
from gateway.calls.limits import open_files
from gateway.calls.limits.budgets import ROUND_SECONDS as BUDGET_SECONDS
from gateway.calls.limits.budgets import Budgets
from gateway.calls.limits.open_streams import OpenStreams
from gateway.calls.limits.slices import give_way_to
from gateway.calls.outgoing.upstreams import Upstreams
from gateway.calls.resumption.approved import ApprovedTaskResumer
from gateway.calls.resumption.consented import ConsentedTaskResumer
from gateway.calls.resumption.takeover import Takeover
from gateway.calls.revocation.expired_grants import SWEEP_SECONDS as GRANTS_SECONDS
from gateway.calls.revocation.expired_grants import ExpiredGrants
from gateway.calls.revocation.kill_switch import KillStorage, KillSwitch
from gateway.calls.revocation.running import POLL_SECONDS as HALT_SECONDS
from gateway.calls.revocation.spool import SPOOL_SECONDS
from gateway.calls.targets.front_door import FrontDoor
from gateway.concurrency.garbage import IDLE_CHECK_SECONDS, GarbageCollection
from gateway.ingress.http.asgi import Receive, Send
from gateway.ingress.http.empty_lists import EmptyListReasons
from gateway.ingress.http.errors import FAULT_IDS, REASON_IDS
from gateway.ingress.http.rejected_credentials import RejectedCredentialLog
from gateway.registration.inspection import EntryInspector
from gateway.registration.onboarding import Onboarding
from gateway.registration.refresh import REQUESTED_ROUND_SECONDS, ROUND_SECONDS, EntryRefresher
from gateway.server.composition import capacity, telemetry, upstreams
from gateway.server.composition.access import authorization as rights
from gateway.server.composition.access.retention import build_retention
from gateway.server.composition.access.rulings import Rulings, build_rulings, list_key_of
from gateway.server.composition.access.sessions import build_sessions, start_sessions
from gateway.server.composition.built_in.memory import build_memory, facts_finder, offer_memory
from gateway.server.composition.built_in.sandbox import build_sandbox
from gateway.server.composition.built_in.servers import BuiltInOffer, BuiltInServers, build_registry
from gateway.server.composition.built_in.state import BoardDependencies, LazyBoard, offer_state
from gateway.server.composition.built_in.subjects import Subjects, build_subjects, offer_claims
from gateway.server.composition.calls import build_calls
from gateway.server.composition.events.rules import build_events, read_event_rules, record_registry_change
from gateway.server.composition.events.webhooks import build_webhooks
from gateway.server.composition.storage import open_storage
from gateway.server.composition.upstreams import upstream_headers
from gateway.server.composition.workflows import CLAIMS_SECONDS, LOST_SECONDS, WAKE_SECONDS, LazyWorkflows, WorkflowDependencies
from gateway.server.configured import RETRY_SECONDS, ConfiguredEntries, build_configured_entries
from gateway.server.drain import Drain, DrainTimes, Lifecycle, take_steps
from gateway.server.periodic import PeriodicTasks
from gateway.server.reload import RELOAD_POLL_SECONDS, KeyReload
from gateway.server.settings import Settings
from gateway.state.effects.view import PlannedEffect
from gateway.storage.database_start import cause_of
from gateway.storage.files.data_folder import missing_files
from gateway.storage.mailbox import ProcessMailbox
from gateway.storage.processes import ProcessRegistry
from gateway.tasks.log import POLL_SECONDS, TaskLog
from gateway.tasks.turns.journal import TurnLimits
from gateway.tasks.turns.stores import TaskStores
from gateway.tasks.webhooks.delivery import DELIVERY_ROUND_SECONDS
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.outcomes import OutcomeLabels
from gateway.telemetry.upstream_calls import CallTelemetry
from gateway.telemetry.worker_figures import WorkerFigures
from gateway.timeouts import DEFAULT_TIMEOUTS, Timeouts
from policies.audit.heads import HeadsFile
from policies.audit.log import AuditLog
from policies.authority import RulingRequest
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant
from policies.ids import new_id, now_us
from policies.vault.store import DatabaseVault
from registry.cards.card import WORKFLOW_KIND
from registry.drift.renewal import DriftApproval
from registry.health.checks import Probes
from registry.search.agents import AgentSearch
from registry.seeds import ConfiguredEntryRegistrar
from registry.store import Registry

THREAD_SECONDS = 0.0005  # how long the event loop waits for a thread that reads many rows or builds an index
log = structlog.get_logger()
SWEEP_SECONDS = 60.0
RESUME_SECONDS = 1.0
CHECKPOINT_SECONDS = 1.0
GAUGES_SECONDS = 1.0
EXPIRY_SECONDS = 5.0
COST_SUMS_SECONDS = 300.0


class Gateway:
    """One process of the gateway with all of its parts. `start` and `stop` run in its event loop. `takes_signals`: see Drain."""

    def __init__(
        self, settings: Settings, worker: WorkerFigures | None = None, *, timeouts: Timeouts = DEFAULT_TIMEOUTS, takes_signals: bool = False
    ) -> None:
        self.settings, self.timeouts, self._worker = settings, timeouts, worker
        event_rules, self._missing_at_start = read_event_rules(settings), missing_files(settings.home, settings.database_url)
        self.lifecycle, self.server_list_changes = Lifecycle(), ServerListChanges()
        self.metrics = Metrics(OutcomeLabels(REASON_IDS | {"bad-envelope", "unknown-session", "canceled"}, FAULT_IDS), worker)
        self.rejected_credentials = RejectedCredentialLog(time.monotonic)
        self.empty_lists = EmptyListReasons(lambda: self.rulings.engine.permitted_roles, self.rejected_credentials.log_empty_list)
        self.open_streams = OpenStreams(total_max=open_files.raise_limit().streams_max)
        self.process = new_id("p")
        self.exports = telemetry.build_exports(settings, self.metrics, worker)
        self.tracer, observe = self.exports.tracer, telemetry.observe_commits(self.metrics)
        storage = open_storage(settings, self.process, stale_seconds=timeouts.stale_epochs, observe_commit=observe)
        self.keys, self.database, self._locks = storage.keys, storage.database, storage.locks
        self.audit = AuditLog(new_id("a"), now_us)
        self.database.enlist(self.audit)
        self.egress = Egress(settings.allowed_targets, connections=(capacity.connections_max(settings), 0))
        self.envelope = upstreams.build_envelope(settings)
        self.sandbox, offers = build_sandbox(settings), _offered_servers(self, settings)
        self.built_in = BuiltInServers(self.sandbox, offers)
        self.events = build_events(settings, event_rules, self.database)
        self.registry, self.rulings = _build_registry_and_rulings(self)
        self.mailbox = ProcessMailbox(self.database, now_us)
        self.sign_in_sessions = build_sessions(settings, self.database, self.envelope, self.rulings, self.audit)
        self.vault = DatabaseVault(self.database, self.envelope, now_us)
        self.account_connections = AccountConnections(self.database, self.envelope, settings.public_url, now_us, self.audit.record)
        self.own_client = upstreams.build_own_client(settings, self.keys)
        self.oauth = upstreams.build_oauth(self.egress, self.own_client, self.vault, self.account_connections)
        self.tools = upstreams.build_mcp_tools(settings, self.egress, self.oauth, timeouts, self.built_in, changes=self.server_list_changes)
        self.push_wakeups = PushWakeups(settings.public_url)
        self.catalog = upstreams.catalog(settings, self.egress, self.lifecycle, self.push_wakeups, self.tools, oauth=self.oauth)
        sources = upstreams.build_sources(settings, self.egress, self.tools, self.catalog)
        self.inspector = EntryInspector(sources, self.catalog.kinds)
        self.onboarding = Onboarding(self.registry, self.inspector)
        self.drift_approval = DriftApproval(self.database, self.registry)
        self.entry_refresher = EntryRefresher(self.registry, self.inspector, self.drift_approval, probes := Probes(self.database, now_us))
        self.search = AgentSearch(self.database, self.registry)
        self.configured_entries = _build_configured_entries(self, probes)
        self.stores = _build_stores(self)
        self.retention = build_retention(settings.retention, self.database, self.audit, self.stores.tasks.pruning, process=self.process)
        self.webhooks = build_webhooks(settings, self.keys, self.database, self.stores.tasks, self.envelope, events=self.events)
        self.limits = rights.build_limits(settings)
        self.slots = capacity.build_slots(settings, self.limits, self.rulings.authority)
        self.budgets = Budgets(self.database, self.audit, self.limits, now_us)
        self.upstreams = self._build_upstreams()
        self.authorizer = CallAuthorizer(self.rulings.authority, self.rulings.hop_tokens, self.stores, self.upstreams, self.rulings.spool)
        self.front_door = FrontDoor(self.registry, self.database, self.rulings.authority.could_allow, list_key_of(self.rulings.authority))
        costs = capacity.build_costs(settings, self.limits, self.database, self.registry, audit=self.audit, metrics=self.metrics)
        parts = (self.registry, self.authorizer, self.stores, self.upstreams, self.front_door)
        find_facts, seen = facts_finder(lambda: self.memory), CallTelemetry(self.metrics, self.tracer)
        self.calls = build_calls(*parts, telemetry=seen, costs=costs, timeouts=timeouts, find_facts=find_facts)
        drain_times = DrainTimes(settings.server.drain, settings.server.drain_delay)
        self.drain = Drain(drain_times, self.calls.turn_runner, self.lifecycle, self.open_streams, takes_signals=takes_signals)
        self.kill_switch = _build_kill_switch(self)
        self._build_resumers()
        self.backlog_gauges = _build_gauges(self)
        self.processes = ProcessRegistry(self.database, self.process, now_us)
        self.periodic_tasks = PeriodicTasks(self.database, self.audit, _open_heads(self), self.processes)
        self.garbage = GarbageCollection()

    def _build_resumers(self) -> None:
        """Builds the board, memory, approvals, and what resumes tasks after an approval, a consent, or the end of another process."""
        parts, resumed, callers = self.calls.parts, self.calls.resumed_turns, self.rulings.caller_resolver
        self.takeover = Takeover(parts, resumed, self.rulings.authority, callers, stores=self.stores, turns=self.calls.turns)
        self.board = LazyBoard(
            BoardDependencies(self.settings, self.stores, self.authorizer, self.calls.servers, self.registry, self.events.recorder)
        )
        self.subjects = _build_subjects(self)
        self.memory = build_memory(self.settings, self.stores, self.registry, self.rulings.authority, self.authorizer)
        self.workflows = LazyWorkflows(_workflow_dependencies(self))
        self.approvals = Approvals(self.database, self.audit, now_us, self.workflows.requesters_of, self.board.settling_write)
        self.catalog.add_own_kind(WORKFLOW_KIND, self.workflows.build_adapter)
        self.stores.tasks.subscribe_to_looks(self.workflows.renew_roles)
        self.lifecycle.on_drain(lambda _: self.stores.tasks.begin_drain())
        self.lifecycle.on_stop(self.workflows.close, after_turns=True)
        self.approved_task_resumer = ApprovedTaskResumer(parts, resumed, callers, self.stores)
        self.consented_task_resumer = ConsentedTaskResumer(parts, resumed, callers, self.stores)

    def _build_upstreams(self) -> Upstreams:
        limits = self.settings.limits
        seconds, idle, absences = (limits.agent_timeout, limits.tool_timeout), limits.agent_idle_timeout, self.entry_refresher.absences
        return Upstreams(self.catalog, self.tools, upstream_headers, *seconds, self.limits, self.slots, absences, idle_timeout=idle)

    @property
    def created_files(self) -> dict[str, str]:
        """The paths of the files that this start has created, by their purpose. Some of the files contain secrets."""
        return {purpose: str(path) for purpose, path in self._missing_at_start.items() if path.exists()}

    async def record_audit(self, record: Mapping[str, object]) -> None:
        await self.database.write(lambda batch: self.audit.record(batch, record))

    async def _write_gauges(self) -> None:
        self.metrics.write_gauges()

    async def authorize(self, caller: Caller, act: Act, task_id: str = "") -> Grant:
        """Returns the recorded Grant for an act of administration. `task_id` is the task that the act is about. Raises CallRefused."""
        return await self.authorizer.authorize_and_record(caller, RulingRequest(act, caller.principal.tenant, task_id=task_id))

    async def lifespan(self, receive: Receive, send: Send, on_started: Callable[[], None]) -> None:
        """ASGI lifespan: start before the first request, stop after the last. Calls `on_started` between them."""
        await receive()
        try:
            await self.start()
        except Exception as error:  # the root of the process: the ASGI server gets every failure and ends
            if problem := cause_of(error):
                log.error("start_failed", problem=problem, todo="interlock check")
            else:
                log.exception("start_failed")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        self.garbage.begin()
        sys.setswitchinterval(THREAD_SECONDS)
        self.drain.take_signals()
        await send({"type": "lifespan.startup.complete"})
        on_started()
        await receive()
        await self.stop()
        log.info("gateway_stopped", seconds=round(self.drain.seconds, 2))
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        """Starts the database, begins the audit chain, loads the caches and starts the periodic tasks."""
        self.database.start()
        give_way_to(self.database)
        await self.database.refresh_epochs()
        await self.registry.reload()
        await self.search.index_missing()
        await self.rulings.kills.reload()
        await self.database.write(lambda batch: self.audit.begin_chain(batch.connection, batch))
        _watch_changes(self)
        await start_sessions(self.settings, self.database, self.rulings, self.periodic_tasks)
        await self.workflows.begin_events()
        await self.periodic_tasks.start(self.drain.until_begun(self.takeover.run_once))
        self.periodic_tasks.repeat(RELOAD_POLL_SECONDS, self.rulings.policy_reload.poll)
        self.periodic_tasks.repeat(RELOAD_POLL_SECONDS, KeyReload(self.database, self.keys).poll)
        await self.budgets.run_once()
        self.periodic_tasks.repeat(BUDGET_SECONDS, self.budgets.run_once)
        self.periodic_tasks.repeat(EXPIRY_SECONDS, ExpiredReservations(self.database, now_us).run_once)
        sums = StoredSums(self.database, self.registry.tenants, read_sums, now_us)
        self.periodic_tasks.repeat_elected(COST_SUMS_SECONDS, sums.run_once)
        self.periodic_tasks.repeat(HALT_SECONDS, lambda: self.calls.stopper.poll(self.rulings.kills))
        for close_idle in (self.upstreams.sweep, self.open_streams.sweep, self.tools.sweep):
            self.periodic_tasks.repeat(SWEEP_SECONDS, close_idle)
        for sweep in _list_sweeps(self):
            self.periodic_tasks.repeat_elected(SWEEP_SECONDS, sweep)
        self.periodic_tasks.repeat(RESUME_SECONDS, self.drain.until_begun(self.approved_task_resumer.run_once))
        self.periodic_tasks.repeat(RESUME_SECONDS, self.drain.until_begun(self.consented_task_resumer.run_once))
        self.periodic_tasks.repeat(WAKE_SECONDS, self.drain.until_begun(self.workflows.wake_once))
        self.periodic_tasks.repeat(LOST_SECONDS, self.drain.until_begun(self.workflows.end_lost))
        self.periodic_tasks.repeat(CLAIMS_SECONDS, self.drain.until_begun(self.workflows.tend_claims))
        self.periodic_tasks.repeat_elected(GRANTS_SECONDS, ExpiredGrants(self.database, now_us).sweep)
        self.periodic_tasks.repeat_elected(GRANTS_SECONDS, OldCosts(self.database, now_us, self.settings.costs.kept_days).prune)
        self.retention.start(self.periodic_tasks.repeat)
        self.periodic_tasks.repeat(CHECKPOINT_SECONDS, self.database.checkpoint)
        await self.backlog_gauges.run_once()
        self.periodic_tasks.repeat(telemetry.BACKLOG_SECONDS, self.backlog_gauges.run_once)
        self.exports.start(self.periodic_tasks.repeat)
        if not self.database.is_sqlite:
            self.periodic_tasks.repeat(POLL_SECONDS, self.stores.tasks.poll_other_processes)
        await self.configured_entries.start()
        self.periodic_tasks.repeat(RETRY_SECONDS, self.configured_entries.run_once)
        await self.workflows.folder.publish_before_serving()
        self.periodic_tasks.repeat(RETRY_SECONDS, self.workflows.folder.publish_waiting)
        self.periodic_tasks.repeat(ROUND_SECONDS, self.entry_refresher.run_once)
        self.periodic_tasks.repeat(REQUESTED_ROUND_SECONDS, self.entry_refresher.refresh_requested)
        self.periodic_tasks.repeat(DELIVERY_ROUND_SECONDS, self.webhooks.delivery.run_once)
        for serve_webhook in (*self.webhooks.notifier.rounds, *self.webhooks.events.rounds):
            self.periodic_tasks.repeat(WAKE_SECONDS, serve_webhook)
        self.periodic_tasks.repeat_elected(GRANTS_SECONDS, lambda: self.webhooks.notices.prune(now_us()))
        self.periodic_tasks.repeat(SPOOL_SECONDS, lambda: self.rulings.spool.drain(self.database))
        if self._worker is not None:
            self.periodic_tasks.repeat(GAUGES_SECONDS, self._write_gauges)
        self.periodic_tasks.repeat(IDLE_CHECK_SECONDS, self.garbage.run_once)
        self.lifecycle.start()

    async def stop(self) -> None:
        """Drains turns in flight within the drain period, writes what is pending, and closes every part even if one of them fails."""
        await self.lifecycle.wait_until_started()
        await take_steps(self.drain.finish())
        await self.lifecycle.stop()
        await take_steps(self.calls.close())
        await self.lifecycle.stop_after_turns()
        entries = (self.entry_refresher.close, self.configured_entries.close)
        upstreams_last = (self.webhooks.delivery.close, self.tools.close, self.webhooks.egress.close, self.egress.close)
        for close in (self.periodic_tasks.stop, self.budgets.close, *entries, *upstreams_last):
            await take_steps(close())
        try:
            self.database.close()
        finally:
            await take_steps(self.periodic_tasks.sign_and_log_head())
            await take_steps(self.exports.close())
            self._locks.close()


def _offered_servers(gateway: Gateway, settings: Settings) -> tuple[BuiltInOffer, ...]:
    """The servers whose tools are functions of the gateway, which are built at their first request."""
    return (
        *offer_state(settings, lambda: gateway.board.build_tools()),
        *offer_claims(settings, lambda: gateway.subjects.build_tools()),
        *offer_memory(settings, lambda: gateway.memory),
    )


def _list_sweeps(gateway: Gateway) -> tuple[Callable[[], Awaitable[object]], ...]:
    """Returns what deletes rows that nothing needs any more."""
    return (
        gateway.approvals.sweep,
        gateway.board.prune,
        gateway.workflows.prune_events,
        gateway.webhooks.events.sweep,
        gateway.authorizer.effects.sweep,
        gateway.subjects.claims.prune,
        gateway.account_connections.sweep,
        gateway.memory.store.sweep,
    )


def _build_subjects(gateway: Gateway) -> Subjects:
    async def find_plans(caller: Caller, subject: str) -> Sequence[PlannedEffect]:
        return await gateway.workflows.find_plans(caller, subject)

    return build_subjects(gateway.authorizer.effects, gateway.board.rulings, gateway.rulings.authority, gateway.events.recorder, find_plans)


def _workflow_dependencies(gateway: Gateway) -> WorkflowDependencies:
    return WorkflowDependencies(
        gateway.registry,
        gateway.stores,
        gateway.calls.agents,
        gateway.takeover,
        gateway.rulings,
        services=rights.build_service_principals(gateway.settings),
        public_url=gateway.settings.public_url,
        folder=gateway.settings.workflows,
        authorizer=gateway.calls.parts.authorizer,
        call_state_of=gateway.catalog.resilience.describe_agent,
        costs=gateway.calls.parts.costs,
        currency=gateway.settings.costs.currency,
        events=gateway.events,
        claims=gateway.subjects.claims,
    )


def _build_configured_entries(gateway: Gateway, probes: Probes) -> ConfiguredEntries:
    registrar = ConfiguredEntryRegistrar(gateway.registry, gateway.drift_approval, gateway.onboarding.candidate_from_config, probes)
    entries = build_configured_entries(gateway.settings.agents, gateway.settings.servers, gateway.settings.virtual)
    return ConfiguredEntries(registrar, entries, start_seconds=gateway.timeouts.configured_entries)


def _build_gauges(gateway: Gateway) -> telemetry.BacklogGauges:
    streams, stopper, home = gateway.open_streams, gateway.calls.stopper, gateway.settings.home
    resilience, tools = gateway.catalog.resilience, gateway.tools
    sources = telemetry.GaugeSources(gateway.rulings.kills, resilience, tools, streams, stopper, gateway.slots, gateway.keys, home)
    telemetry.add_gauges(gateway.metrics, sources)
    return telemetry.BacklogGauges(gateway.metrics, gateway.database, gateway.settings)


def _build_registry_and_rulings(gateway: Gateway) -> tuple[Registry, Rulings]:
    recorder = gateway.events.recorder
    record_change = partial(record_registry_change, gateway.audit, recorder)
    registry = build_registry(gateway.database, record_change, gateway.envelope, gateway.built_in.registrations)
    gateway.database.watch("registry", registry.reload)  # the first watcher: the others then find the current entries
    given = (gateway.settings, gateway.keys, gateway.database, registry)
    return registry, build_rulings(*given, audit=gateway.audit, egress=gateway.egress, recorder=recorder)


def _build_kill_switch(gateway: Gateway) -> KillSwitch:
    archive = KillStorage(gateway.database, gateway.audit, gateway.rulings.spool, new_id, now_us, gateway.events.recorder)
    issuers, services = rights.issuers_of_people(gateway.settings), gateway.settings.service_principals.keys()
    return KillSwitch(archive, gateway.rulings.kills, gateway.calls.stopper, gateway.registry, issuers, services=services)


def _build_stores(gateway: Gateway) -> TaskStores:
    tasks = TaskLog(gateway.database, now_us, gateway.process, gateway.events.recorder)
    limits = TurnLimits(gateway.settings.limits.turn_events, gateway.settings.limits.turn_bytes)
    return TaskStores(gateway.database, gateway.audit, gateway.rulings.grants, tasks, new_id, now_us, limits)


def _open_heads(gateway: Gateway) -> HeadsFile:
    heads = HeadsFile(gateway.settings.home / "audit.heads", gateway.keys, now_us)
    heads.compact()
    return heads


def _watch_changes(gateway: Gateway) -> None:
    """Says what is forgotten or read again when another process changes the registry, grants, policies, keys, kills or notices."""
    for name in ("registry", "grants", "policies"):
        gateway.database.watch(name, gateway.rulings.authority.invalidate)
        gateway.database.watch(name, gateway.rulings.caller_resolver.invalidate)
    gateway.database.watch("grants", gateway.calls.stopper.on_revocation)
    gateway.database.watch("kills", gateway.rulings.kills.reload)
    gateway.database.watch("policies", gateway.rulings.policy_reload.reload)
    gateway.database.watch("keys", gateway.rulings.token_verifier.invalidate)
    gateway.database.watch("registry", gateway.workflows.folder.publish_soon)
    gateway.database.watch("notices", gateway.webhooks.notices.on_change)
    gateway.database.watch("event-types", gateway.workflows.events.reload_listened)
