"""Claims that tasks hold while they last: what a document asks for, with the values of its expressions."""

from typing import Final

from msgspec.structs import replace

from gateway.workflows.dsl.durations import milliseconds_of
from gateway.workflows.dsl.extras import PURPOSE_MAX, BlockClaim
from gateway.workflows.interpreter.effects import StepKey, WantedClaim
from gateway.workflows.interpreter.errors import OWN, Fault, WorkflowError, standard_error
from gateway.workflows.interpreter.evaluation import Evaluation, TaskAtWork
from gateway.workflows.interpreter.scope import Scope
from registry.cards.effects import SUBJECT_NAME

CLAIM_PLACE: Final = ("metadata", "gateway", "claim")  # beside the task
CONFLICT: Final = 409  # the HTTP status of such an error
SHOWN_MAX: Final = 60  # characters of a bad subject


async def wanted_claim(evaluation: Evaluation, claim: BlockClaim, at: TaskAtWork, scope: Scope) -> WantedClaim:
    """What a task claims. Raises WorkflowError (expression, validation) for a value that names no subject."""
    said = await evaluation.value({"subject": claim.subject, "purpose": claim.purpose}, at.raw_input, scope, at)
    subject, purpose = said["subject"], said["purpose"]
    if not isinstance(subject, str) or not SUBJECT_NAME.fullmatch(subject):
        raise standard_error("validation", f"{str(subject)[:SHOWN_MAX]!a} is no subject such as customer:42", scope.pointer)
    if not isinstance(purpose, str) or len(purpose) > PURPOSE_MAX or not purpose.isprintable():
        raise standard_error("validation", f"the purpose is not one line of text, of at most {PURPOSE_MAX} characters", scope.pointer)
    return WantedClaim(
        subject,
        claim.effect,
        purpose,
        claim.priority,
        milliseconds_of(claim.lease),
        milliseconds_of(claim.cool_down),
        milliseconds_of(claim.wait),
    )


def task_of_claim(key: StepKey) -> StepKey:
    """The task that holds a claim, by the key of the claim."""
    return replace(key, pointer=key.pointer.removesuffix("".join(f"/{step}" for step in CLAIM_PLACE)))


def is_of_claim(key: StepKey) -> bool:
    """Whether an effect is the taking of a claim, or the wait for one."""
    return task_of_claim(key) != key


def claim_denied(detail: str, instance: str, *, is_cooling: bool = False) -> WorkflowError:
    """The error of a task whose claim was refused: another holder has the subject, or it cools down."""
    kind, title = ("cool-down", "Cooling Down") if is_cooling else ("claim-denied", "Claim Denied")
    return WorkflowError(Fault(OWN + kind, CONFLICT, title, detail, instance))


def claim_lost(subject: str, effect: str, token: int, instance: str) -> WorkflowError:
    """The error of a task that no longer has its claim."""
    what = subject if effect == "*" else f"{subject} ({effect})"
    detail = f"the claim on {what} was pre-empted, released or expired before the task ended; its token {token} is stale"
    return WorkflowError(Fault(f"{OWN}claim-lost", CONFLICT, "Claim Lost", detail, instance))
