"""Gates of a step: what must hold of its output before the run goes on."""

from typing import Any, Final

from gateway.workflows.dsl.document import TaskBase
from gateway.workflows.interpreter.errors import OWN, Fault, WorkflowError
from gateway.workflows.interpreter.evaluation import Evaluation, TaskAtWork
from gateway.workflows.interpreter.scope import Scope

LOW_CONFIDENCE: Final = f"{OWN}low-confidence"
CHECK_FAILED: Final = f"{OWN}check-failed"


async def check_output(evaluation: Evaluation, task: TaskBase, output: Any, scope: Scope, at: TaskAtWork) -> None:
    """Raises WorkflowError where a step is not confident enough, or its rule does not hold. A missing confidence fails the gate."""
    extras = task.metadata.gateway
    if extras.min_confidence is not None:
        confidence = await evaluation.bare(extras.confidence, output, scope, at)
        if isinstance(confidence, bool) or not isinstance(confidence, int | float) or confidence < extras.min_confidence:
            said = "no confidence" if confidence is None else f"the confidence {confidence!r:.40}"
            detail = f"the step has {said}; {extras.min_confidence:g} is needed"
            raise WorkflowError(Fault(LOW_CONFIDENCE, 422, "Low Confidence", detail, scope.pointer))
    rule = extras.check.rule if extras.check is not None else None
    if rule is not None and not await evaluation.holds(rule, output, scope, at):
        raise WorkflowError(Fault(CHECK_FAILED, 422, "Check Failed", f"the rule does not hold: {rule[:200]}", scope.pointer))
