"""The check of a step by a second agent: where it does not agree, people decide."""

from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.workflows.interpreter.effects import Effects, PreparedCall
from gateway.workflows.interpreter.errors import OWN, Fault, WorkflowError
from gateway.workflows.interpreter.evaluation import TaskAtWork
from gateway.workflows.interpreter.scope import Scope

CHECK_FAILED: Final = f"{OWN}check-failed"
ACCEPT, REJECT = "accept", "reject"
TASK: Final = (
    "Check the output of another agent's step against its input. Answer with the JSON object "
    '{"agrees": true or false, "reason": "why, in one sentence"} and nothing else.'
)
REASON_MAX: Final = 1000  # characters


class CheckVerdict(Struct, frozen=True):
    """What the second agent says of an output."""

    agrees: bool
    reason: str = ""


async def ask_second_agent(effects: Effects, agent: str, output: Any, scope: Scope, at: TaskAtWork) -> None:
    """Returns when the second agent or, where it disagrees, a person accepts an output. Raises WorkflowError otherwise.

    An answer that is no verdict counts as a disagreement.
    """
    place = scope.enter("metadata", "gateway", "check")
    given = {"task": TASK, "step": at.name, "input": at.input, "output": output}
    asked = PreparedCall("gateway.agent", {"agent": agent, "input": given}, at.input, {})
    verdict = read_verdict(await effects.call(place.enter("agent").key, asked))
    if verdict.agrees:
        return
    reason = verdict.reason[:REASON_MAX] or "no reason given"
    prompt = f"The agent {agent} does not agree with the output of the step {at.name}: {reason}. Accept the output?"
    question = {"prompt": prompt, "options": [ACCEPT, REJECT]}
    chosen = await effects.call(place.key, PreparedCall("gateway.choose", question, output, {}))
    if chosen != ACCEPT:
        raise WorkflowError(
            Fault(CHECK_FAILED, 422, "Check Failed", f"{agent} disagreed, and a person rejected it: {reason}", scope.pointer)
        )


def read_verdict(answer: Any) -> CheckVerdict:
    """The verdict in an answer, data or its text."""
    try:
        return msgspec.json.decode(answer, type=CheckVerdict) if isinstance(answer, str) else msgspec.convert(answer, CheckVerdict)
    except (msgspec.MsgspecError, RecursionError):
        return CheckVerdict(agrees=False, reason="its answer is no verdict")
