"""What each kind of task does, steps of coordinators included."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.workflows.coordination.choice import run_agents
from gateway.workflows.coordination.planning import run_plan
from gateway.workflows.dsl.coordination import AGENT, PLAN
from gateway.workflows.dsl.document import CallFunction
from gateway.workflows.interpreter import kinds
from gateway.workflows.interpreter.evaluation import TaskAtWork
from gateway.workflows.interpreter.interpreter import Interpreter, TaskFunction
from gateway.workflows.interpreter.scope import Scope


async def run_function(run: Interpreter, task: CallFunction, at: TaskAtWork, scope: Scope) -> tuple[Any, str | None]:
    """Calls a function of the document or one of the gateway's own."""
    if task.call == PLAN:
        return await run_plan(run, task, at, scope)
    if task.call == AGENT and "agents" in task.with_:
        return await run_agents(run, task, at, scope)
    return await kinds.run_function(run, task, at, scope)


TASK_FUNCTIONS: Final[Mapping[type, TaskFunction]] = {**kinds.STANDARD_TASKS, CallFunction: run_function}
