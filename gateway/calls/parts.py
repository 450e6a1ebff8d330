"""The parts that calls of agents and calls of servers share in one process of the gateway."""

from dataclasses import dataclass

from gateway.calls.authorizer import CallAuthorizer
from gateway.calls.costs.ledger import CostLedger
from gateway.calls.handoff import FindFacts
from gateway.calls.outgoing.upstreams import Upstreams
from gateway.calls.targets.callees import Callees
from gateway.calls.targets.unknown_names import UnknownNameDenials
from gateway.calls.turns.pausing import TaskPausing
from gateway.tasks.turns.in_flight import InFlight
from gateway.telemetry.upstream_calls import CallTelemetry


@dataclass(frozen=True, slots=True)
class CallParts:
    """The parts of a call, in the order in which a call uses them."""

    callees: Callees
    unknown_name_denials: UnknownNameDenials
    authorizer: CallAuthorizer
    pausing: TaskPausing
    upstreams: Upstreams
    in_flight: InFlight
    telemetry: CallTelemetry
    costs: CostLedger
    find_facts: FindFacts
