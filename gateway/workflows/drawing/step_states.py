"""What became of each step of a run, for its picture."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class StepState(StrEnum):
    """The state of a step, as a picture names it."""

    DONE = "done"
    FAILED = "failed"
    WAITS = "waits"


def step_states(run: Mapping[str, Any]) -> dict[str, StepState]:
    """Returns by pointer the states of the steps of a run document that have ended, or that wait for people. The last attempt counts."""
    states = {step["step"]: StepState.FAILED if "fault" in step else StepState.DONE for step in run["steps"]}
    return states | {each["step"]: StepState.WAITS for each in run["checkpoints"] if each["state"] == "pending"}
