"""Runs the steps of a plan, as tasks of the run below the step that planned."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.workflows.coordination.plan import GIVEN, AgentStep, DoStep, ForkStep, Plan, SetStep, SwitchStep, ToolStep, reference_in
from gateway.workflows.interpreter.effects import Effects, PreparedCall, RunSuspended, StepKey
from gateway.workflows.interpreter.errors import WorkflowError, standard_error
from gateway.workflows.interpreter.kinds import every_output
from gateway.workflows.interpreter.scope import Scope


class PlanRun:
    """One plan at work. `outputs` has what each step returned, for references and for the planner of the next plan."""

    def __init__(self, effects: Effects, given: Any, metadata: Mapping[str, Any]) -> None:
        self._effects = effects
        self._given = given
        self._metadata = metadata
        self.outputs: dict[str, Any] = {}
        self.failed = ""  # the step that failed first
        self.calls: dict[StepKey, str] = {}  # each call that began, and its target

    async def run(self, plan: Plan, scope: Scope) -> Any:
        """The output of the plan's last step. Raises WorkflowError."""
        return await self._run_list(plan.do, scope.enter("do"))

    async def _run_list(self, steps: Sequence[Mapping[str, Any]], scope: Scope) -> Any:
        output = None
        for index, item in enumerate(steps):
            ((name, step),) = item.items()
            output = await self._run_step(name, step, scope.enter(index, name))
        return output

    async def _run_step(self, name: str, step: Any, scope: Scope) -> Any:
        self._effects.entered(scope.key, None)
        try:
            output = await self._perform(step, scope)
        except WorkflowError as error:
            self.failed = self.failed or name
            self._effects.left(scope.key, None, error.fault)
            raise
        self._effects.left(scope.key, output, None)
        self.outputs[name] = output
        return output

    async def _perform(self, step: Any, scope: Scope) -> Any:
        match step:
            case AgentStep(with_=call):
                self.calls[scope.key] = call.agent
                given = {"agent": call.agent, "skill": call.skill, "input": self._value(call.input, scope)}
                return await self._effects.call(scope.key, PreparedCall(step.call, given, None, self._metadata))
            case ToolStep(with_=call):
                self.calls[scope.key] = call.tool
                given = {"tool": call.tool, "arguments": self._value(call.arguments, scope)}
                return await self._effects.call(scope.key, PreparedCall(step.call, given, None, self._metadata))
            case DoStep(do=steps):
                return await self._run_list(steps, scope.enter("do"))
            case ForkStep():
                return await self._run_fork(step, scope)
            case SwitchStep():
                return await self._run_switch(step, scope)
            case SetStep(set=value):
                return self._value(value, scope)
        raise AssertionError("a plan has no other steps")

    async def _run_fork(self, step: ForkStep, scope: Scope) -> list[Any]:
        branches = [next(iter(item.items())) for item in step.fork.branches]
        started = [
            asyncio.ensure_future(self._run_step(name, branch, scope.enter("fork", "branches", index, name)))
            for index, (name, branch) in enumerate(branches)
        ]
        is_over = True
        try:
            return await every_output(started)
        except RunSuspended:
            is_over = False
            raise
        finally:
            for each in started:
                each.cancel()
            await asyncio.gather(*started, return_exceptions=True)
            if is_over:
                self._effects.abandon(scope.key)

    async def _run_switch(self, step: SwitchStep, scope: Scope) -> Any:
        for index, case in enumerate(step.switch):
            if case.when is None or case.when.holds(self._value(case.when.value.model_dump(), scope)):
                return await self._run_list(case.do, scope.enter("switch", index, "do"))
        return None

    def _value(self, value: Any, scope: Scope) -> Any:
        """A value with its references filled in. What they lead to is data, and is not looked at again. Raises WorkflowError."""
        if (reference := reference_in(value)) is not None:
            source, path = reference["from"], reference.get("path", "")
            found = self._given if source == GIVEN else self.outputs[source]
            return _at(found, path, f"`{source}` has nothing at {path}", scope)
        if isinstance(value, Mapping):
            return {name: self._value(member, scope) for name, member in value.items()}
        if isinstance(value, list):
            return [self._value(each, scope) for each in value]
        return value


def _at(value: Any, path: str, problem: str, scope: Scope) -> Any:
    """The value at a JSON pointer (RFC 6901). Raises WorkflowError (validation)."""
    for step in path.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isascii() and name.isdigit() and len(name) < 10 and int(name) < len(value):
            value = value[int(name)]
        else:
            raise standard_error("validation", problem, scope.pointer)
    return value
