"""A recorded run as a case of a rehearsal: what its steps returned are the given answers, and what became of it is expected."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

COMPLETED: Final = "TASK_STATE_COMPLETED"
CLAIM_END: Final = "/metadata/gateway/claim"  # of the steps that take claims
FAILED: Final = "TASK_STATE_FAILED"


class NotRecorded(Exception):
    """The run can't be a case; the message says why."""


def case_of_run(run: Mapping[str, Any], task: Mapping[str, Any]) -> dict[str, Any]:
    """The case of a run as /api/runs and /api/tasks show it. Raises NotRecorded for a run that has not ended by itself.

    A step that a time limit cut off, or that lost in `compete`, returned nothing and has no answer in the case.
    """
    if run["state"] not in (COMPLETED, FAILED):
        raise NotRecorded(f"run {run['id']} has neither completed nor failed, so there is no ending to expect")
    calls = [step for step in run["steps"] if not step["step"].endswith(CLAIM_END)]
    steps = sorted(calls, key=lambda step: (step["started"], step["ended"]))
    refused = [step["step"].removesuffix(CLAIM_END) for step in run["steps"] if step["step"].endswith(CLAIM_END) and "fault" in step]
    answers: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        answers.setdefault(step["step"], []).append(_answer(step))
    return {
        "name": f"{run['workflow']} as in run {run['id']}",
        "input": run["input"],
        "answers": {place: given[0] if len(given) == 1 else given for place, given in answers.items()},
        **({"claims": {place: {"denied": True} for place in refused}} if refused else {}),
        "expect": _ending(run["state"], task) | {"calls": [step["step"] for step in steps]},
    }


def _answer(step: Mapping[str, Any]) -> dict[str, Any]:
    if "fault" in step:
        return {"error": {name: value for name, value in step["fault"].items() if value != ""}}
    return {"output": step["value"]}


def _ending(state: str, task: Mapping[str, Any]) -> dict[str, Any]:
    """What is expected of the run. Raises NotRecorded where its task has no output or problem details."""
    if state == COMPLETED:
        return {"output": _first_data(part for artifact in task["artifacts"] for part in artifact["parts"])}
    parts = ((task.get("status") or {}).get("message") or {}).get("parts") or ()
    fault = _first_data(parts)
    return {"status": "faulted", "error": {name: fault[name] for name in ("type", "status", "instance") if name in fault}}


def _first_data(parts: Any) -> Any:
    for part in parts:
        if "data" in part:
            return part["data"]
    raise NotRecorded("the run has no recorded ending of its document: it was stopped from outside, or its workflow is gone")


def rehearsal_of(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The file of a rehearsal with these cases."""
    return {"cases": list(cases)}
