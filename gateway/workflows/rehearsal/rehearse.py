"""Runs the cases of a rehearsal and says how each differs from what is expected."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from gateway.workflows.cloud_events.matching import EventMatcher
from gateway.workflows.coordination.kinds import TASK_FUNCTIONS
from gateway.workflows.dsl.constructs import Units
from gateway.workflows.dsl.document import Document
from gateway.workflows.dsl.durations import milliseconds_of
from gateway.workflows.expressions.evaluator import Evaluator
from gateway.workflows.interpreter.errors import Fault, WorkflowError, matches
from gateway.workflows.interpreter.interpreter import Interpreter
from gateway.workflows.rehearsal.clock import Stalled, VirtualClock
from gateway.workflows.rehearsal.effects import Observed, ScriptedEffects, Unanswered
from gateway.workflows.rehearsal.script import ExpectedRun, Rehearsal, RehearsalCase

START: Final = 1_767_225_600_000_000  # microseconds: 2026-01-01T00:00:00Z


class Outcome(Struct, frozen=True):
    """How one case went. `status` is completed, faulted, waiting or unanswered; `seconds` is virtual time. No `problems`: as expected."""

    name: str
    status: str
    output: Any
    fault: Fault | None
    steps: tuple[str, ...]
    seconds: float
    problems: tuple[str, ...]


class BusyEvaluator(Evaluator):
    """Knows whether an expression is being evaluated."""

    running = 0

    async def _ask(self, expressions: Sequence[str], request: Mapping[str, Any]) -> list[Any]:
        self.running += 1
        try:
            return await super()._ask(expressions, request)
        finally:
            self.running -= 1


async def rehearse(document: Document, rehearsal: Rehearsal) -> list[Outcome]:
    """The outcome of each case."""
    evaluator = BusyEvaluator()
    try:
        return [(await rehearse_case(document, case, evaluator))[0] for case in rehearsal.cases]
    finally:
        await evaluator.close()


async def rehearse_case(
    document: Document, case: RehearsalCase, evaluator: BusyEvaluator, make_effects: type[ScriptedEffects] = ScriptedEffects
) -> tuple[Outcome, Observed]:
    """The outcome of one case, and what its run did."""
    clock = VirtualClock(START, lambda: evaluator.running > 0)
    effects = make_effects(case, clock, EventMatcher(evaluator))
    work = asyncio.ensure_future(Interpreter(document, evaluator, effects, TASK_FUNCTIONS, "rehearsal").run(case.input))
    status, output, fault, problems = "completed", None, None, []
    try:
        await clock.drive(work)
        output = work.result()
    except WorkflowError as error:
        status, fault = "faulted", error.fault
    except Stalled:
        status = "waiting"
    except Unanswered as error:
        status, problems = "unanswered", [str(error)]
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    seconds = (clock.now - START) / 1_000_000
    problems += _differences(case.expect, status, output, fault, effects.observed, seconds=seconds)
    return Outcome(case.name, status, output, fault, tuple(effects.observed.steps), seconds, tuple(problems)), effects.observed


def _differences(wanted: ExpectedRun, status: str, output: Any, fault: Fault | None, observed: Observed, *, seconds: float) -> list[str]:
    """Each thing that is not as expected, in words."""
    found = []
    if status != wanted.status:
        said = f": {fault.detail or fault.title or fault.type} at {fault.instance}" if fault else ""
        found.append(f"the run is {status}, expected {wanted.status}{said}")
    if "output" in wanted.model_fields_set and not _has(output, wanted.output):
        found.append(f"the output is {output!r}, expected {wanted.output!r}")
    if wanted.error and (fault is None or not matches(fault, wanted.error)):
        found.append(f"the error is not {wanted.error!r}")
    names = {step.rpartition("/")[2] for step in observed.steps}
    found += [f"`{name}` did not run" for name in wanted.ran if name not in names]
    found += [f"`{name}` ran" for name in wanted.not_ran if name in names]
    if wanted.calls is not None:
        found += _other_calls(Counter(wanted.calls), Counter(observed.called))
    found += [f"no event has {event!r}" for event in wanted.events if not any(_has(each, event) for each in observed.events)]
    if wanted.within is not None and seconds * 1000 > _milliseconds(wanted.within):
        found.append(f"the run took {seconds:g} seconds")
    return found


def _other_calls(wanted: Counter[str], called: Counter[str]) -> list[str]:
    """The steps that were called more or less often than expected, in words."""
    places = sorted(wanted.keys() | called.keys())
    return [f"{each} was called {called[each]} times, expected {wanted[each]}" for each in places if called[each] != wanted[each]]


def _has(value: Any, wanted: Any) -> bool:
    """Whether a value equals the wanted one; of objects only the wanted members are compared."""
    if isinstance(wanted, Mapping):
        return isinstance(value, Mapping) and all(name in value and _has(value[name], each) for name, each in wanted.items())
    return bool(value == wanted)


def _milliseconds(duration: Any) -> int:
    return duration.total if isinstance(duration, Units) else milliseconds_of(duration)
