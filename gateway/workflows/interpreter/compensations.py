"""Compensation: when a run faults, the functions that undo its finished steps run, the last step's first."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.workflows.interpreter.effects import Effects, StepKey
from gateway.workflows.interpreter.errors import Fault, WorkflowError
from gateway.workflows.interpreter.scope import Scope

ORDER: Final = StepKey("/compensations")
PLACE: Final = "/metadata/gateway/compensate"  # of a step's compensation, beside the step
BEGUN: Final = "begun"
ENDED: Final = "ended"
RunFunction = Callable[[str, Any, Scope], Awaitable[object]]  # runs a function of the document on an input, in a scope


class FinishedStep(Struct, frozen=True):
    """A step that can be undone: what it got and what it returned."""

    step_key: StepKey
    function: str
    input: Any
    output: Any


class UndoPlan(Struct, frozen=True):
    """All that the undoing of a run needs: why the run faulted, its context, and its finished steps, the last one first."""

    fault: Fault
    context: Any
    steps: tuple[FinishedStep, ...]


class Compensations:
    """The finished steps of one run that name a function to undo them."""

    def __init__(self) -> None:
        self._finished: dict[str, FinishedStep] = {}

    def add(self, step: FinishedStep) -> None:
        self._finished[str(step.step_key)] = step

    async def plan(self, effects: Effects, fault: Fault, context: Any) -> UndoPlan:
        """The journaled plan of what is undone. Raises WorkflowError for more than the journal takes.

        It is journaled as a whole before the first step is undone: a replay may not reach these steps, and branches of a fork may finish
        in another order.
        """
        plan = UndoPlan(fault, context, tuple(reversed(self._finished.values())))
        return plan if not plan.steps else decode_plan(await effects.record(ORDER, _encode_plan(plan)))


async def undo(plan: UndoPlan, effects: Effects, run_function: RunFunction) -> Fault:
    """Undoes every step of a plan. Returns the fault of the run, whose detail names the steps that could not be undone.

    The journal has for each step that its undoing has begun, and what came of it: the empty text, or why it failed.
    """
    left_open = []
    for step in plan.steps:
        scope = Scope(f"{step.step_key.pointer}{PLACE}", step.step_key.visits, step.step_key.attempts)
        begun, ended = scope.enter(BEGUN).key, scope.enter(ENDED).key
        if (problem := await effects.recorded(ended)) is None:
            await effects.record(begun, step.function)
            problem = await effects.record(ended, await _undo_step(plan, step, run_function, scope))
        if problem:
            left_open.append(f"{step.step_key.pointer} ({problem})")
    return with_open_steps(plan.fault, left_open)


async def _undo_step(plan: UndoPlan, step: FinishedStep, run_function: RunFunction, scope: Scope) -> str:
    """Why the step could not be undone, or the empty text."""
    given = {"input": step.input, "output": step.output, "error": {"type": plan.fault.type, "status": plan.fault.status}}
    try:
        await run_function(step.function, given, scope)
    except WorkflowError as error:
        return str(error) or error.fault.type
    return ""


def undone_step(key: StepKey, mark: str) -> StepKey | None:
    """The step to whose undoing a record belongs that is marked as BEGUN or ENDED; None for another effect."""
    step, _, rest = key.pointer.rpartition(PLACE)
    return msgspec.structs.replace(key, pointer=step) if step and rest == f"/{mark}" else None


def with_open_steps(fault: Fault, left_open: list[str]) -> Fault:
    """A fault whose detail names the steps that could not be undone."""
    if not left_open:
        return fault
    return replace(fault, detail=f"{fault.detail or ''}; not undone: {', '.join(left_open)}".lstrip("; "))


def is_undoing(key: StepKey) -> bool:
    """Whether an effect is part of the undoing of a run."""
    return PLACE in key.pointer or key.pointer == ORDER.pointer


def _encode_plan(plan: UndoPlan) -> dict[str, Any]:
    """A plan as JSON. Equal values are written once: what a step returned is often what the next one got."""
    values: dict[bytes, int] = {}
    shown: list[Any] = []

    def number_of(value: Any) -> int:
        encoded = msgspec.json.encode(value, order="sorted")
        if encoded not in values:
            values[encoded] = len(shown)
            shown.append(value)
        return values[encoded]

    steps = [
        {**msgspec.to_builtins(each.step_key), "function": each.function, "input": number_of(each.input), "output": number_of(each.output)}
        for each in plan.steps
    ]
    return {"fault": msgspec.to_builtins(plan.fault), "context": number_of(plan.context), "steps": steps, "values": shown}


def decode_plan(recorded: Mapping[str, Any]) -> UndoPlan:
    """A plan from its JSON in the journal."""
    values = recorded["values"]
    steps = [
        FinishedStep(
            StepKey(each["pointer"], tuple(each["visits"]), tuple(each["attempts"])),
            each["function"],
            values[each["input"]],
            values[each["output"]],
        )
        for each in recorded["steps"]
    ]
    return UndoPlan(msgspec.convert(recorded["fault"], Fault), values[recorded["context"]], tuple(steps))
