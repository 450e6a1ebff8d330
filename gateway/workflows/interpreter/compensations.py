"""Compensation: when a run faults, the functions that undo its finished steps run, the last step's first."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.workflows.interpreter.effects import Effects, StepKey
from gateway.workflows.interpreter.errors import Fault, WorkflowError
from gateway.workflows.interpreter.scope import Scope

ORDER: Final = StepKey("/compensations")
RunFunction = Callable[[str, Any, Scope], Awaitable[object]]  # runs a function of the document on an input, at a place


class _Finished(Struct, frozen=True):
    """A step that can be undone: what it got and what it returned."""

    scope: Scope
    function: str
    input: Any
    output: Any


class Compensations:
    """The finished steps of one run that name a function to undo them."""

    def __init__(self) -> None:
        self._finished: dict[str, _Finished] = {}

    def add(self, scope: Scope, function: str, input: Any, output: Any) -> None:
        self._finished[str(scope.key)] = _Finished(scope, function, input, output)

    async def undo(self, effects: Effects, run_function: RunFunction, fault: Fault) -> Fault:
        """Undoes every finished step. Returns the fault of the run, whose detail names the steps that could not be undone.

        The order is journaled, since branches of a fork may finish in another order when the run is replayed.
        """
        if not self._finished:
            return fault
        left_open = []
        for key in reversed(await effects.record(ORDER, list(self._finished))):
            step = self._finished[key]
            place = _place_of(step.scope)
            given = {"input": step.input, "output": step.output, "error": {"type": fault.type, "status": fault.status}}
            try:
                await run_function(step.function, given, place)
            except WorkflowError as error:
                left_open.append(f"{step.scope.pointer} ({error})")
        if not left_open:
            return fault
        return replace(fault, detail=f"{fault.detail or ''}; not undone: {', '.join(left_open)}".lstrip("; "))


def _place_of(scope: Scope) -> Scope:
    """The place of a step's compensation, beside the step."""
    return Scope(f"{scope.pointer}/metadata/gateway/compensate", scope.visits, scope.attempts)
