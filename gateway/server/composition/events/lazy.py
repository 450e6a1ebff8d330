"""Makes what stores and hands on events when it is needed. Without events, triggers and workflows, nothing of it is imported."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from gateway.calls.agent_calls import AgentCalls
from gateway.calls.authorizer import CallAuthorizer
from gateway.concurrency.built_once import BuiltOnce
from gateway.server.composition.access.rulings import Rulings
from gateway.server.composition.events.rules import EventParts
from gateway.server.composition.events.rulings import EventRulings
from gateway.tasks.turns.stores import TaskStores
from policies.delegation.run_as import ServicePrincipals
from registry.store import Registry

if TYPE_CHECKING:
    from gateway.workflows.cloud_events.delivery import EventLog, EventStore
    from gateway.workflows.cloud_events.relay import EventRelay
    from gateway.workflows.cloud_events.triggers import TriggerStarter
    from gateway.workflows.engine.adapter import EngineParts
    from gateway.workflows.engine.scheduled_starts import ScheduledStarts
    from gateway.workflows.engine.waking import RunWaker
    from gateway.workflows.event_operations import EventOperations


class EventDependencies(Protocol):
    """What events need of the gateway; gateway/server/composition/workflows.py has it."""

    @property
    def registry(self) -> Registry: ...

    @property
    def stores(self) -> TaskStores: ...

    @property
    def agents(self) -> AgentCalls: ...

    @property
    def rulings(self) -> Rulings: ...

    @property
    def services(self) -> ServicePrincipals: ...

    @property
    def events(self) -> EventParts: ...

    @property
    def authorizer(self) -> CallAuthorizer: ...


class LazyEvents:
    """The events of one process, as far as the engine of workflows is needed for them. `engine` and `wakers` make that."""

    def __init__(
        self,
        dependencies: EventDependencies,
        engine: Callable[[], "EngineParts"],
        wakers: Callable[[], "tuple[RunWaker, ScheduledStarts]"],
    ) -> None:
        self._dependencies = dependencies
        self._engine = engine
        self._wakers = wakers
        self._has_begun = False
        self.rulings = EventRulings(dependencies.authorizer, dependencies.stores)

    @BuiltOnce
    def store(self) -> "EventStore":
        from gateway.workflows.cloud_events.delivery import EventStore

        return EventStore(self._dependencies.stores.audit, self._dependencies.events.routes)

    @BuiltOnce
    def log(self) -> "EventLog":
        from gateway.workflows.cloud_events.delivery import EventLog

        return EventLog(self._engine().store, self.store)

    @BuiltOnce
    def _relay(self) -> "EventRelay":
        from gateway.workflows.cloud_events.relay import EventRelay

        stores = self._dependencies.stores
        return EventRelay(stores.database, self.store, self._dependencies.events.recorder, stores.now)

    @BuiltOnce
    def _triggers(self) -> "TriggerStarter":
        from gateway.workflows.cloud_events.matching import EventMatcher
        from gateway.workflows.cloud_events.triggers import TriggerCalls, TriggerStarter

        engine, given = self._engine(), self._dependencies
        calls = TriggerCalls(
            engine.store,
            engine.versions,
            registry=given.registry,
            agents=given.agents,
            callers=given.rulings.caller_resolver,
            services=given.services,
            authorize=self.rulings.authorize_later_write,
            could_allow=given.rulings.authority.could_allow,
        )
        return TriggerStarter(given.events.starts, EventMatcher(engine.evaluator), calls)

    @BuiltOnce
    def operations(self) -> "EventOperations":
        """What /api needs to take and show events."""
        from gateway.workflows.cloud_events.feed import EventFeed
        from gateway.workflows.event_operations import EventOperations, EventWakers
        from policies.tokens.replay_guard import ReplayGuard

        stores, wakers = self._dependencies.stores, EventWakers(*self._wakers(), self._triggers)
        replays = ReplayGuard(stores.database, stores.now)
        starts = self._dependencies.events.starts
        return EventOperations(stores.database, self.log, EventFeed(stores.database), wakers, starts, replays=replays)

    async def begin(self) -> None:
        """Has nothing missed of what is told from now on."""
        await self.reload_listened()
        await self._relay.begin()

    async def reload_listened(self) -> None:
        """Reads for which of the gateway's own events workflows and runs wait. Called when any process has changed that."""
        self._has_begun = True
        from gateway.workflows.cloud_events.listens import read_listened

        self._dependencies.events.recorder.set_listened(await self._dependencies.stores.database.read(read_listened))

    async def run_once(self) -> int:
        """Stores the gateway's own events, and starts what triggers are to start. Returns how many of either."""
        if not self._has_begun:
            await self.reload_listened()
        stored = await self._relay.run_once()
        if stored:
            waker, starter = self._wakers()
            waker.wake_soon()
            starter.start_soon()
        return stored + await self._triggers.run_once()

    async def prune(self) -> None:
        """Deletes old events, and ends the starts of triggers that the settings name no more."""
        await self.log.prune()
        await self._dependencies.events.starts.sweep()
