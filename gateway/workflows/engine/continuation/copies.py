"""Which steps of a run's journal another run begins with."""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import UNSET

from gateway.workflows.interpreter.claims import is_of_claim
from gateway.workflows.interpreter.compensations import BEGUN, ENDED, ORDER, decode_plan, is_undoing, undone_step
from gateway.workflows.interpreter.errors import OUTCOME_UNKNOWN, Fault
from gateway.workflows.runs.journal import CALL, CLAIM, DUE, LIMIT, StepRow

FUNCTION: Final = "/function"
SECOND_CHECK: Final = "/metadata/gateway/check"
PEOPLE: Final = "people"  # the target of steps that ask people


def steps_to_redrive(steps: Sequence[StepRow], fault: Fault | None) -> list[StepRow]:
    """The steps that a redriven run does not repeat, in their order: all but the one that failed and those that were undone.

    What came after the first step that was undone is repeated too, since it was computed from what that step returned.
    """
    undone = undone_steps(steps)
    kept = [step for step in steps if not is_compensation(step) and step.kind != LIMIT and not _is_open_wait(step, steps)]
    if undone:
        first = min(step.ended for step in undone)
        keys = {step.key for step in undone}
        kept = [step for step in kept if step.key not in keys and step.started < first]
    failed = None if fault is None else _failed_step(kept, fault)
    return [step for step in kept if step is not failed and not is_granted_claim(step)]


def is_granted_claim(step: StepRow) -> bool:
    """Whether the run held a claim by this step, or waited for one: another run takes its claims itself."""
    return (step.kind == CLAIM and step.result.fault is UNSET) or (step.kind == DUE and is_of_claim(step.step_key))


def undone_steps(steps: Sequence[StepRow]) -> list[StepRow]:
    """The calls whose compensation was begun."""
    begun = [key for each in steps if (key := undone_step(each.step_key, BEGUN)) is not None]
    calls = [step for step in steps if step.kind == CALL and not is_compensation(step) and step.result.fault is UNSET]
    return [step for step in calls if any(step.step_key.is_within(key) for key in begun)]


def undone_among(steps: Sequence[StepRow], kept: Sequence[StepRow]) -> list[StepRow]:
    """The calls of `kept` that the run has undone, or is going to undo by its plan, in the order in which they began."""
    plans = [decode_plan(each.result.value) for each in steps if each.step_key == ORDER and isinstance(each.result.value, Mapping)]
    planned = [step.step_key for plan in plans for step in plan.steps]
    keys = {step.key for step in undone_steps(steps)}
    found = [step for step in kept if step.key in keys or (step.kind == CALL and any(step.step_key.is_within(key) for key in planned))]
    return sorted(found, key=lambda step: step.started)


def repeated_unknowns(steps: Sequence[StepRow], kept: Sequence[StepRow]) -> list[str]:
    """The steps that a redriven run repeats and that may have had their effect: their outcome is unknown, or they could not be undone."""
    keys = {step.key for step in kept}
    undone = {key for each in steps if (key := undone_step(each.step_key, ENDED)) is not None and each.result.value == ""}
    begun = {key for each in steps if (key := undone_step(each.step_key, BEGUN)) is not None} - undone
    found = []
    for step in steps:
        if step.kind == CALL and step.key not in keys and not is_compensation(step):
            fault = step.result.fault
            is_unknown = any(step.step_key.is_within(key) for key in begun) if fault is UNSET else fault.type == OUTCOME_UNKNOWN
            found += [step.step_key.pointer] if is_unknown else []
    return found


def is_compensation(step: StepRow) -> bool:
    return is_undoing(step.step_key)


def is_approval(step: StepRow) -> bool:
    """Whether people have approved of something: what holds for one run alone, and not for one with another input or version."""
    value = step.result.value
    has_approved = isinstance(value, dict) and value.get("approved") is True
    return step.trail.target == PEOPLE and (has_approved or step.step_key.pointer.endswith(SECOND_CHECK))


def _is_open_wait(step: StepRow, steps: Sequence[StepRow]) -> bool:
    """Whether a wait was still going on when the run ended."""
    return step.kind == DUE and isinstance(step.result.value, int) and step.result.value > max(each.ended for each in steps)


def _failed_step(steps: Sequence[StepRow], fault: Fault) -> StepRow | None:
    """The step that raised the error of a run, or whose output did not pass. None where no step of its own did."""
    calls = [step for step in steps if step.kind in (CALL, CLAIM)]
    found = [step for step in calls if step.step_key.pointer == fault.instance]
    found = found or [step for step in calls if step.step_key.pointer == f"{fault.instance}{FUNCTION}"]
    return found[-1] if found else None
