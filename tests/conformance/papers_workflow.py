"""The results of the workflow kit on paper: lines for the screen, a part of build/conformance.json, a part of docs/conformance.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.conformance.kit_workflow import ScenarioResult, failed

INTRODUCTION = """## Workflows

The kit is `ctk/features` of `open-workflow-specification/specification`, checked out in `build/open-workflow-specification` or the folder
in `OPEN_WORKFLOW_SPECIFICATION`. `tests/conformance/workflow_features.py` performs its phrases with the interpreter that runs workflows.
The kit's documents call public services. `tests/conformance/workflow_upstreams.py` answers these calls in the process, because the gateway
calls only what is registered.
"""
OWN = """### Features of this repository

The kit leaves much of the language out. `tests/gateway/workflows/features` covers it in the same form, and `make test` runs it.
"""


def document(found: Sequence[ScenarioResult]) -> dict[str, Any]:
    """Of build/conformance.json: the member `workflow`."""
    return {"workflow": {"passed": len(found) - len(failed(found)), "failed": [one.id for one in failed(found)]}}


def table(found: Sequence[ScenarioResult]) -> str:
    """For the screen."""
    lines = [f"workflow kit {_counts(found)}", *(f"FAILED {one.id}: {one.why[:300]}" for one in failed(found))]
    return "\n".join(lines)


def _counts(found: Sequence[ScenarioResult]) -> str:
    return f"{len(found) - len(failed(found))}/{len(found)} scenarios"


def page(found: Sequence[ScenarioResult], own: Mapping[str, Sequence[str]]) -> str:
    """Of docs/conformance.md."""
    rows = [f"| {one.file} | {one.name} | {'**no**' if one.why else 'yes'} |" for one in found]
    kit = [f"{_counts(found)}.", "", "| feature | scenario | passes |", "|---|---|---|", *rows, ""]
    return "\n".join([INTRODUCTION, *kit, own_page(own)])


def own_page(own: Mapping[str, Sequence[str]]) -> str:
    rows = [f"| {feature} | {len(names)} | {'; '.join(names)} |" for feature, names in own.items()]
    return "\n".join([OWN, "| feature | scenarios | |", "|---|---|---|", *rows, ""])
