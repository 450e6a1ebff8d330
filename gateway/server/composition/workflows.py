"""Makes the engine of workflows when the first workflow is added, shown or run. Without one, nothing of it is imported."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from gateway.calls.agent_calls import AgentCalls
from gateway.calls.authorizer import CallAuthorizer
from gateway.calls.costs.ledger import CostLedger
from gateway.calls.resumption.takeover import Takeover
from gateway.concurrency.background import run_in_background
from gateway.concurrency.built_once import BuiltOnce
from gateway.concurrency.rounds import RequestedRounds
from gateway.server.composition.access.rulings import Rulings
from gateway.server.composition.events.lazy import LazyEvents
from gateway.server.composition.events.rules import EventParts
from gateway.state.claims.operations import ClaimOperations, ClaimRulings
from gateway.state.claims.store import SubjectClaims
from gateway.state.effects.view import PlannedEffect
from gateway.storage.database import ReadFailed, WriteFailed
from gateway.tasks.log import TaskRow
from gateway.tasks.turns.stores import TaskStores
from gateway.workflows.publishing.files import RefusedDocument, documents_in
from policies.callers import Caller
from policies.delegation.rulings import Act, Grant
from policies.delegation.run_as import ServicePrincipals
from registry.cards.card import WORKFLOW_KIND, Registration
from registry.seeds import DEFAULT_TENANT
from registry.store import Registry, has_workflow

if TYPE_CHECKING:
    from gateway.workflows.administration import WorkflowAdministration
    from gateway.workflows.engine.adapter import EngineParts, WorkflowAdapter
    from gateway.workflows.engine.scheduled_starts import ScheduledStarts
    from gateway.workflows.engine.steps import StepCalls
    from gateway.workflows.engine.suspension.claim_steps import ClaimParts
    from gateway.workflows.engine.waking import RunWaker
    from gateway.workflows.event_operations import EventOperations
    from gateway.workflows.operations import RunOperations
    from gateway.workflows.publishing.fitness import Fitness
    from gateway.workflows.publishing.folder import WorkflowFolder
    from gateway.workflows.publishing.planned_effects import PlannedEffects
    from gateway.workflows.publishing.registrar import WorkflowRegistrar
    from gateway.workflows.runs.people.renewal import RunRenewal
    from gateway.workflows.runs.store import RunStore

WAKE_SECONDS = 0.5
PROGRESS_SECONDS = 1.0  # between log lines while documents are published at start
LOST_SECONDS = 10.0
CLAIMS_SECONDS = 2.0
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WorkflowDependencies:
    """What the engine needs of the gateway."""

    registry: Registry
    stores: TaskStores
    agents: AgentCalls
    takeover: Takeover
    rulings: Rulings
    services: ServicePrincipals
    public_url: str
    folder: str  # of documents; empty for none
    authorizer: CallAuthorizer
    call_state_of: Callable[[Registration], dict[str, Any]]
    events: EventParts
    costs: CostLedger
    claims: SubjectClaims
    currency: str = "USD"  # of costs


class LazyFolder:
    """The configured folder of documents. Nothing of the engine is imported for one without documents."""

    def __init__(self, folder: str, load: "Callable[[], tuple[WorkflowRegistrar, ScheduledStarts]]") -> None:
        """`folder` is empty for none. `load` is called in a thread."""
        self._path = folder
        self._load = load
        self._rounds = RequestedRounds(self.publish_waiting, "workflows_not_published", WriteFailed, ReadFailed)
        self._documents: list[Path] = []
        self._folder: WorkflowFolder | None = None

    async def publish_before_serving(self) -> None:
        """Tries each document, and logs how far it is where that takes a while. Raises OSError."""
        self._documents = documents_in(Path(self._path)) if self._path else []
        if not self._documents:
            return
        progress = run_in_background(self._log_progress(), "workflow_progress_failed")
        try:
            self._folder = await asyncio.to_thread(self._open)
            await self._folder.publish_all()
        finally:
            progress.cancel()

    def _open(self) -> "WorkflowFolder":
        from gateway.workflows.publishing.folder import WorkflowFolder

        registrar, starter = self._load()
        return WorkflowFolder(self._documents, registrar, starter.reconcile)

    async def _log_progress(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            waiting = len(self._documents) if self._folder is None else self._folder.waiting_count
            log.info("workflows_publishing", documents=len(self._documents), waiting=waiting)

    async def publish_waiting(self) -> None:
        """Tries the documents that are not published yet."""
        if self._folder is not None and self._folder.waiting_count:
            await self._folder.run_once()

    def publish_soon(self) -> None:
        """Tries them beside the caller. Called when any process has changed the registry, which may have what they lack."""
        if self._folder is not None and self._folder.waiting_count:
            self._rounds.ask()

    def has_published(self, name: str) -> bool:
        """Whether a document of the folder sets the workflow of this name in the default tenant."""
        return self._folder is not None and name in self._folder.published_names

    def refused_documents(self, tenant: str) -> Sequence[RefusedDocument]:
        """The documents that are not published, which would be workflows of this tenant."""
        return self._folder.refused if self._folder is not None and tenant == DEFAULT_TENANT else ()


class LazyWorkflows:
    """The engine of one process."""

    def __init__(self, dependencies: WorkflowDependencies) -> None:
        self._dependencies = dependencies
        self._generation_checked = -1
        self._is_needed = False
        self.folder = LazyFolder(dependencies.folder, lambda: (self._registrar, self._starter))
        self.events = LazyEvents(dependencies, lambda: self._parts, lambda: (self._waker, self._starter))

    def build_adapter(self) -> "WorkflowAdapter":
        from gateway.workflows.engine.adapter import WorkflowAdapter

        return WorkflowAdapter(self._parts)

    async def load(self) -> "WorkflowAdministration":
        """What /api needs. The modules are imported in a thread, since that takes a while."""
        self._is_needed = True
        return self._administration if "_administration" in self.__dict__ else await asyncio.to_thread(lambda: self._administration)

    @BuiltOnce
    def _parts(self) -> "EngineParts":
        from gateway.workflows.cloud_events.listens import Listens
        from gateway.workflows.cloud_events.matching import EventMatcher
        from gateway.workflows.engine.adapter import EngineParts
        from gateway.workflows.engine.event_steps import EventSteps
        from gateway.workflows.engine.steps import StarterRights, StepCalls
        from gateway.workflows.engine.targets import StepTargets, TargetRights
        from gateway.workflows.expressions.evaluator import Evaluator
        from gateway.workflows.runs.people.checkpoints import Checkpoints
        from gateway.workflows.runs.people.open_checkpoints import OpenCheckpoints
        from gateway.workflows.runs.people.relaxations import Relaxations
        from gateway.workflows.runs.places import RunPlaces

        given, stores, store = self._dependencies, self._dependencies.stores, self._fitness.store
        could_allow, callers, causing_runs = given.rulings.authority.could_allow, given.rulings.caller_resolver, given.costs.causing_runs
        rights = StarterRights(given.authorizer, could_allow)
        steps = StepCalls(given.agents, callers, stores, given.registry, rights, causing_runs=causing_runs)
        matcher = EventMatcher(evaluator := Evaluator())
        events = EventSteps(Listens(store), matcher, steps, self.events.rulings.authorize, self.events.store, could_allow=could_allow)
        return EngineParts(
            store,
            RunPlaces(store),
            self._fitness.versions,
            evaluator,
            steps,
            Checkpoints(store, stores.audit),
            OpenCheckpoints(store, stores.audit),
            Relaxations(store, stores.audit),
            self._fitness,
            stores.audit,
            StepTargets(given.registry, TargetRights(steps, given.authorizer, could_allow, given.call_state_of)),
            events,
            _build_claims(given, self.events.rulings.authorize, store, steps),
            given.currency,
        )

    async def tend_claims(self) -> int:
        """Renews and ends the claims of runs, where the engine is loaded. Returns how many runs hold claims or wait for them."""
        return await self._parts.claims.claims.tend() if "_administration" in self.__dict__ else 0

    @BuiltOnce
    def _fitness(self) -> "Fitness":
        from gateway.workflows.publishing.fitness import Fitness
        from gateway.workflows.runs.store import RunStore
        from gateway.workflows.runs.versions import Versions

        stores = self._dependencies.stores
        store = RunStore(stores.database, stores.now, stores.tasks.runner, self._dependencies.events.recorder)
        return Fitness(self._dependencies.registry, store, Versions(store))

    async def prune_events(self) -> None:
        """Deletes old events and withdraws checkpoints of runs that were stopped, where there is any workflow or trigger."""
        if self._is_needed:
            await self.events.prune()
            await self._parts.checkpoints.withdraw_ended()

    async def begin_events(self) -> None:
        """Loads the engine at the start where the settings have events stored or started by, so that none is missed."""
        if self._dependencies.events.need_engine:
            await self.load()
            await self.events.begin()

    @BuiltOnce
    def _waker(self) -> "RunWaker":
        from gateway.workflows.engine.waking import RunWaker

        return RunWaker(self._parts.store, self._parts.places, self._dependencies.takeover, self._dependencies.registry)

    @BuiltOnce
    def _registrar(self) -> "WorkflowRegistrar":
        from gateway.workflows.publishing.registrar import WorkflowRegistrar

        parts, given = self._parts, self._dependencies
        return WorkflowRegistrar(
            given.registry, parts.store, parts.evaluator, self._fitness, public_url=given.public_url, services=given.services
        )

    @BuiltOnce
    def _starter(self) -> "ScheduledStarts":
        from gateway.workflows.cloud_events.matching import EventMatcher
        from gateway.workflows.cloud_events.schedules import Schedules
        from gateway.workflows.engine.scheduled_starts import ScheduledStarts, ServiceRuns

        parts, given = self._parts, self._dependencies
        schedules = Schedules(parts.store)
        runs = ServiceRuns(
            schedules,
            parts.versions,
            registry=given.registry,
            agents=given.agents,
            callers=given.rulings.caller_resolver,
            services=given.services,
            authorize=self.events.rulings.authorize,
            could_allow=given.rulings.authority.could_allow,
        )
        matcher, could_allow = EventMatcher(parts.evaluator), given.rulings.authority.could_allow
        return ScheduledStarts(schedules, parts.versions, matcher, registry=given.registry, runs=runs, could_allow=could_allow)

    @BuiltOnce
    def _administration(self) -> "WorkflowAdministration":
        from gateway.workflows.administration import WorkflowAdministration

        return WorkflowAdministration(self._registrar, self._parts, self._waker, self._dependencies.stores.tasks, starter=self._starter)

    async def find_plans(self, caller: Caller, subject: str) -> Sequence[PlannedEffect]:
        """What open runs are going to do to a subject, and the next runs of schedules of workflows that the caller may start or audit."""
        has_workflows = any(entry.kind == WORKFLOW_KIND for entry in self._dependencies.registry.list(caller.principal.tenant))
        return await (await asyncio.to_thread(lambda: self._plans)).find(caller, subject) if has_workflows else ()

    @BuiltOnce
    def _plans(self) -> "PlannedEffects":
        from gateway.workflows.publishing.planned_effects import PlannedEffects

        return PlannedEffects(self._dependencies.registry, self._parts, self._dependencies.rulings.authority.could_allow)

    async def load_events(self) -> "EventOperations":
        """What /api needs to take and show events."""
        self._is_needed = True
        return self.events.operations if "operations" in self.events.__dict__ else await asyncio.to_thread(lambda: self.events.operations)

    async def load_operations(self) -> "RunOperations":
        """What /api needs to operate runs."""
        self._is_needed = True
        return await asyncio.to_thread(lambda: self._operations)

    @BuiltOnce
    def _operations(self) -> "RunOperations":
        from gateway.workflows.engine.continuation.successors import Successors
        from gateway.workflows.operations import RunOperations
        from gateway.workflows.runs.pauses import Pauses

        parts, audit = self._parts, self._dependencies.stores.audit
        successors = Successors(parts.store, parts.versions, parts.evaluator, audit, self._dependencies.stores.tasks)
        return RunOperations(parts.store, parts.checkpoints, Pauses(parts.store, audit), successors=successors, waker=self._waker)

    async def wake_once(self) -> int:
        """Starts and resumes the runs that are due, where there is any workflow."""
        registry = self._dependencies.registry
        if not self._is_needed and registry.generation != self._generation_checked:
            self._generation_checked = registry.generation
            has_workflows = any(entry.kind == WORKFLOW_KIND for tenant in registry.tenants() for entry in registry.list(tenant))
            self._is_needed = has_workflows or self._dependencies.events.need_engine
        if not self._is_needed:
            return 0
        if "_administration" not in self.__dict__:
            await self.load()  # not in the event loop, which it would block
        return await _run_all(self._starter.run_once(), self._waker.run_once(), self.events.run_once())

    async def end_lost(self) -> int:
        """Ends suspended runs that nothing can go on with, where there is any workflow."""
        return await self._waker.end_lost() if self._is_needed else 0

    async def requesters_of(self, tenant: str, txn: str) -> Collection[str]:
        """The people, by owner key, who brought about what a service does in a transaction."""
        return await (await asyncio.to_thread(lambda: self._parts)).store.requesters_of(tenant, txn)

    async def renew_roles(self, caller: Caller, row: TaskRow) -> None:
        """Called for each task that a person looks at: if it is a suspended run of theirs, the roles of now count for it.

        That run goes on at once, and the runs below it beside the request, which does not wait for the runs of others.
        """
        if row.runner or row.has_ended or caller.delegation.path or not has_workflow(self._dependencies.registry, row.tenant, row.agent):
            return
        if await (await asyncio.to_thread(lambda: self._renewal)).renew(caller, row):
            from gateway.workflows.runs.store import RunKey

            await self._waker.wake(RunKey(row.tenant, row.id))
            self._waker.wake_soon()

    @BuiltOnce
    def _renewal(self) -> "RunRenewal":
        from gateway.workflows.runs.people.renewal import RunRenewal

        return RunRenewal(self._dependencies.stores, self._dependencies.rulings.environment)

    async def close(self) -> None:
        """Ends the workers that evaluate expressions."""
        if "_parts" in self.__dict__:
            await self._parts.evaluator.close()


def _build_claims(
    given: WorkflowDependencies, authorize_for: Callable[[Caller, Act, str], Awaitable[Grant]], store: "RunStore", steps: "StepCalls"
) -> "ClaimParts":
    """What has tasks of runs hold claims, with the rights of the runs."""
    from gateway.workflows.engine.suspension.claim_steps import ClaimParts
    from gateway.workflows.engine.suspension.run_claims import RunClaims

    async def authorize(caller: Caller, act: Act) -> Grant:
        return await authorize_for(caller, act, caller.delegation.task_id)

    operations = ClaimOperations(given.claims, ClaimRulings(authorize, given.rulings.authority.could_allow))
    return ClaimParts(store, RunClaims(store, given.claims), operations, steps)


async def _run_all(*rounds: Awaitable[int]) -> int:
    """What the rounds come to. An error of one keeps no other from its end, and is raised then."""
    outcomes = await asyncio.gather(*rounds, return_exceptions=True)
    for each in outcomes:
        if isinstance(each, BaseException):
            raise each
    return sum(each for each in outcomes if isinstance(each, int))
