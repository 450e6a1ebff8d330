"""Gates of a step: what must hold of its output before the run goes on."""

from typing import Any, Final, Protocol

from gateway.workflows.dsl.document import TaskBase
from gateway.workflows.interpreter.effects import Effects
from gateway.workflows.interpreter.errors import OWN, Fault, WorkflowError
from gateway.workflows.interpreter.evaluation import Evaluation, TaskAtWork
from gateway.workflows.interpreter.scope import Scope
from gateway.workflows.interpreter.second_agent import CHECK_FAILED, ask_second_agent

LOW_CONFIDENCE: Final = f"{OWN}low-confidence"


class Checked(Protocol):
    """The run whose step is checked."""

    @property
    def evaluation(self) -> Evaluation: ...

    @property
    def effects(self) -> Effects: ...


async def check_output(run: Checked, task: TaskBase, output: Any, scope: Scope, at: TaskAtWork) -> None:
    """Raises WorkflowError where a step is not confident enough, its rule does not hold, or its check is not passed.

    A missing confidence fails the gate.
    """
    extras, evaluation = task.metadata.gateway, run.evaluation
    if extras.min_confidence is not None:
        confidence = await evaluation.bare(extras.confidence, output, scope, at)
        if isinstance(confidence, bool) or not isinstance(confidence, int | float) or confidence < extras.min_confidence:
            said = "no confidence" if confidence is None else f"the confidence {confidence!r:.40}"
            detail = f"the step has {said}; {extras.min_confidence:g} is needed"
            raise WorkflowError(Fault(LOW_CONFIDENCE, 422, "Low Confidence", detail, scope.pointer))
    if (check := extras.check) is None:
        return
    if check.agent is not None:
        await ask_second_agent(run.effects, check.agent, output, scope, at)
    rule = check.rule
    if rule is not None and not await evaluation.holds(rule, output, scope, at):
        raise WorkflowError(Fault(CHECK_FAILED, 422, "Check Failed", f"the rule does not hold: {rule[:200]}", scope.pointer))
