"""What the calls of a document will probably cost, each made once: from prices and past calls, also for a workflow without runs."""

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct
from sqlalchemy import Connection

from gateway.calls.costs.expectations import UNKNOWN, CostExpectation, add_up, read_expectation
from gateway.workflows.problems import DocumentRefused
from gateway.workflows.publishing.needs import Need
from gateway.workflows.publishing.registrar import WorkflowRegistrar
from gateway.workflows.runs.versions import Versions
from registry.cards.card import WORKFLOW_KIND, Registration

CALLS_MAX: Final = 500  # of a document with the workflows that it starts
DEPTH_MAX: Final = 4  # workflows in workflows


class ExpectedCall(Struct, frozen=True):
    """One call of a document. `path` is the JSON pointer of its target; of a call in a sub-workflow, that of the start in the document."""

    path: str
    need: Need
    target: Registration | None  # None for one that is not in the registry

    @property
    def name(self) -> str:
        return f"{self.need.name}.{self.need.tool}" if self.need.tool else self.need.name


async def list_calls(workflow: Registration, registrar: WorkflowRegistrar, versions: Versions) -> list[ExpectedCall]:
    """The calls of a workflow, at most CALLS_MAX, and those of the workflows that it starts, DEPTH_MAX deep."""
    found: list[ExpectedCall] = []
    begun: list[tuple[Registration, str, int]] = [(workflow, "", 0)]  # a workflow, the path of its start, and how deep it is
    for each, path, depth in begun:  # the list grows during the loop
        for need, target in await _find_targets(each, registrar, versions):
            if len(found) + len(begun) >= CALLS_MAX:
                return found
            place = path or need.path
            if target is not None and target.kind == WORKFLOW_KIND and depth < DEPTH_MAX:
                begun.append((target, place, depth + 1))
            else:
                found.append(ExpectedCall(place, need, target))
    return found


async def _find_targets(workflow: Registration, registrar: WorkflowRegistrar, versions: Versions) -> list[tuple[Need, Registration | None]]:
    """The targets of a workflow's document, with their registrations; none for a document that this release refuses."""
    try:
        document = await versions.document(workflow.tenant, workflow.name, workflow.workflow_version)
    except DocumentRefused:
        return []
    return [] if document is None else registrar.targets_of(workflow.tenant, document)


def read_calls(connection: Connection, calls: Sequence[ExpectedCall], currency: str) -> dict[str, Any]:
    """The calls with their costs, and the sum, as /api shows them. Loops and conditions are not taken into account."""
    known: dict[str, CostExpectation] = {}
    for call in calls:
        if call.name not in known:
            unknown = CostExpectation(None, None, UNKNOWN)
            known[call.name] = unknown if call.target is None else read_expectation(connection, call.target, call.need.tool)
    shown = [{"path": call.path, "target": call.name, **known[call.name].to_document(currency)} for call in calls]
    return {"calls": shown, "calls_cost": add_up([known[call.name] for call in calls], currency)}
