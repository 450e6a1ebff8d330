"""A step that several agents can do: they are tried in the order of their health, the operator's rank, and what they came to so far."""

from dataclasses import replace
from typing import Any, Final

import msgspec

from gateway.workflows.dsl.document import CallFunction
from gateway.workflows.interpreter.effects import PreparedCall, Rank
from gateway.workflows.interpreter.errors import OUTCOME_UNKNOWN, WorkflowError, standard_error
from gateway.workflows.interpreter.evaluation import TaskAtWork
from gateway.workflows.interpreter.gates import check_output
from gateway.workflows.interpreter.interpreter import Interpreter
from gateway.workflows.interpreter.scope import Scope

DETAIL_MAX: Final = 300  # characters of one agent's error


async def run_agents(run: Interpreter, task: CallFunction, at: TaskAtWork, scope: Scope) -> tuple[Any, str | None]:
    """Asks one agent after the other until one completes the step within its contract and its gates.

    Each attempt has a key of its own. None follows an attempt whose outcome is unknown, since it may have had its effect.
    """
    said = dict(await run.evaluation.value(task.with_, at.input, scope, at))
    names, skill = tuple(said.pop("agents")), str(said.get("skill", ""))
    order = await run.effects.look_up(scope.enter("agents").key, Rank(names, skill))
    problems = []
    failed = standard_error("configuration", f"none of {', '.join(names)} has the skill `{skill}` now", scope.pointer)
    for name in order:
        place = scope.enter("agents", name)
        call = PreparedCall(task.call, {**said, "agent": name}, at.input, at.definition.get("metadata", {}))
        try:
            output = await run.effects.call(place.key, call)
            await _check(run, task, output, at, place)
        except WorkflowError as error:
            if error.fault.type == OUTCOME_UNKNOWN:
                raise
            failed = error
            problems.append(f"{name}: {error}"[:DETAIL_MAX])
        else:
            return output, None
    if len(problems) < 2:
        raise failed
    detail = f"no agent completed the step: {'; '.join(problems)}"
    raise WorkflowError(msgspec.structs.replace(failed.fault, detail=detail, instance=scope.pointer)) from failed


async def _check(run: Interpreter, task: CallFunction, raw: Any, at: TaskAtWork, scope: Scope) -> None:
    """Raises WorkflowError for an answer that the step would fail with, so that the next agent is asked instead."""
    at = replace(at, raw_output=raw)
    output = await run.evaluation.transform_output(task.output, raw, scope, at)
    await check_output(run, task, output, scope, at)
