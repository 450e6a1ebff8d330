"""Builds the parts of a call and connects them."""

from dataclasses import dataclass

from gateway.calls.agent_calls import AgentCalls
from gateway.calls.authorizer import CallAuthorizer
from gateway.calls.costs.ledger import CostLedger
from gateway.calls.handoff import FindFacts
from gateway.calls.outgoing.upstreams import Upstreams
from gateway.calls.parts import CallParts
from gateway.calls.resumption.resumed_turns import ResumedTurns
from gateway.calls.revocation.running import RunningWorkStopper
from gateway.calls.server_calls import ServerCalls
from gateway.calls.targets.callees import Callees
from gateway.calls.targets.front_door import FrontDoor
from gateway.calls.targets.unknown_names import UnknownNameDenials
from gateway.calls.turns.cancellation import Cancellation
from gateway.calls.turns.pausing import TaskPausing
from gateway.calls.turns.runner import TurnRunner
from gateway.tasks.turns.in_flight import InFlight
from gateway.tasks.turns.recorder import TurnRecorder
from gateway.tasks.turns.stores import TaskStores
from gateway.tasks.watcher import WaitingTaskWatcher
from gateway.telemetry.upstream_calls import CallTelemetry
from gateway.timeouts import Timeouts
from registry.store import Registry


@dataclass(frozen=True, slots=True)
class Calls:
    """The parts of one process that start, run, resume and stop calls."""

    parts: CallParts
    agents: AgentCalls
    servers: ServerCalls
    turn_runner: TurnRunner
    resumed_turns: ResumedTurns
    stopper: RunningWorkStopper
    turns: TurnRecorder

    async def close(self) -> None:
        """Waits briefly for turns in flight, and leaves those that still run to another process."""
        await self.turn_runner.close()
        await self.stopper.close()
        await self.turns.close()


def build_calls(
    registry: Registry,
    authorizer: CallAuthorizer,
    stores: TaskStores,
    upstreams: Upstreams,
    front_door: FrontDoor,
    *,
    telemetry: CallTelemetry,
    costs: CostLedger,
    timeouts: Timeouts,
    find_facts: FindFacts,
) -> Calls:
    """Builds the calls of one process from its registry, authorizer, stores and upstreams."""
    in_flight, turns, watcher = (
        InFlight(),
        TurnRecorder(stores, costs=costs, end_effect=authorizer.effects.end_task),
        WaitingTaskWatcher(stores.tasks, stores.now),
    )
    callees = Callees(registry, authorizer, front_door, upstreams.absences)
    denials = UnknownNameDenials(callees, authorizer, upstreams.limits)
    pausing = TaskPausing(authorizer, stores, turns)
    parts = CallParts(callees, denials, authorizer, pausing, upstreams, in_flight, telemetry, costs, find_facts)
    turn_runner = TurnRunner(authorizer, stores, turns, in_flight, watcher, calls=telemetry)
    cancellation = Cancellation(registry, authorizer, upstreams, stores=stores, turns=turns, in_flight=in_flight)
    agents = AgentCalls(parts, stores, front_door, turns=turns, turn_runner=turn_runner, watcher=watcher, cancellation=cancellation)
    stopper = RunningWorkStopper(stores, turns, in_flight, watcher, ending_seconds=timeouts.stopped_turns)
    return Calls(parts, agents, ServerCalls(parts), turn_runner, ResumedTurns(parts, stores, turn_runner), stopper, turns)
