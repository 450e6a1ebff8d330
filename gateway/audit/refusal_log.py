"""Logs refusals for operators."""

import structlog

from policies.delegation.rulings import Decision

log = structlog.get_logger()


def log_refusal(decision: Decision) -> None:
    """Logs a refusal with its reason for the operator. The audit has the full decision."""
    log.info(
        "refused",
        decision_id=decision.id,
        reason_id=decision.reason_id,
        principal=decision.principal,
        chain=[link.agent for link in decision.chain],
        permission=decision.act.permission,
        missing=decision.missing,
        policies=decision.policies,
        **({"problem": decision.problem} if decision.problem else {}),
        task_id=decision.task_id,
    )
