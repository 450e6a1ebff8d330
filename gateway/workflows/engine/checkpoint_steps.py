"""Steps that people answer: `gateway.approve`, `gateway.choose`, `gateway.form`, and `gateway.signal`, which a signal answers."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.tasks.contracts.json_schema import BadSchema, check_schema
from gateway.workflows.dsl.checkpoints import APPROVAL_SCHEMA, OPTIONS_MAX, PROMPT_MAX
from gateway.workflows.dsl.durations import milliseconds_of
from gateway.workflows.engine.results import own_error
from gateway.workflows.engine.steps import RunIdentity
from gateway.workflows.expressions.evaluator import Evaluator, ExpressionFailed
from gateway.workflows.interpreter.effects import PreparedCall, StepKey
from gateway.workflows.interpreter.errors import standard_error
from gateway.workflows.runs.people.checkpoints import (
    APPROVE,
    CHOOSE,
    FORM,
    PENDING,
    SIGNAL,
    WITHDRAWN,
    Checkpoint,
    Checkpoints,
    Escalation,
    Shortcut,
    checkpoint_id,
)
from gateway.workflows.runs.people.relaxations import CheckpointPlace, Relaxations
from gateway.workflows.runs.store import RunRow

CHECKPOINTS: Final[Mapping[str, str]] = {f"gateway.{kind}": kind for kind in (APPROVE, CHOOSE, FORM, SIGNAL)}
EXPIRES: Final = "P7D"


class _Audience(Struct, frozen=True, forbid_unknown_fields=True):
    roles: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()


class _Escalate(Struct, frozen=True, forbid_unknown_fields=True):
    after: str
    to: _Audience


class Asked(Struct, frozen=True):
    """A checkpoint as it stands, and its value once people answered or it expired with a default.

    A withdrawn one stays pending for its step, whose branch has lost.
    """

    checkpoint: Checkpoint
    value: Any = None
    is_pending: bool = False


class CheckpointSteps:
    """Opens checkpoints and reads their answers."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        relaxations: Relaxations,
        evaluator: Evaluator,
        *,
        run: RunRow,
        owner: str,
        now: Callable[[], int],
    ) -> None:
        """`evaluator` evaluates the rules of relaxations; `owner` is the owner of the run."""
        self._checkpoints = checkpoints
        self._relaxations = relaxations
        self._evaluator = evaluator
        self._run = run
        self._owner = owner
        self._now = now

    @property
    def owner(self) -> str:
        """The owner of the run, as tenant|issuer|subject."""
        return self._owner

    async def ask(self, identity: RunIdentity, key: StepKey, call: PreparedCall) -> Asked:
        """Raises WorkflowError: denied, expired without a default, or arguments that are none of a checkpoint."""
        kind, said = CHECKPOINTS[call.function], call.arguments
        schema, prompt = _schema(kind, said, key), _prompt(said, key, "name" if kind == SIGNAL else "prompt")
        now = self._now()
        asked = Checkpoint(
            run=identity.run,
            id=checkpoint_id(identity.run, key),
            step=key.pointer,
            workflow=identity.workflow,
            owner=self._owner,
            kind=kind,
            prompt=prompt,
            schema=schema,
            created=now,
            expires=now + _milliseconds(said, key) * 1000,
            subject=call.subject,
            escalation=_escalation(said, now, key),
        )
        found = await self._checkpoints.open(asked, await self._shortcut(asked, call))
        if found.escalation is not None and not found.is_escalated and found.state == PENDING and found.escalation.at <= now:
            found = await self._checkpoints.escalate(found)
        if found.state == PENDING and found.expires <= now:
            found = await self._checkpoints.expire(found)
        if found.state in (PENDING, WITHDRAWN):
            return Asked(found, is_pending=True)
        return Asked(found, _answer(found, said, key))

    async def _shortcut(self, asked: Checkpoint, call: PreparedCall) -> Shortcut | None:
        """What the checkpoint answers without people, where an operator has relaxed it; None where people are asked."""
        place = CheckpointPlace(asked.run.tenant, asked.workflow, self._run.version, asked.step)
        relaxation = await self._relaxations.find(place)
        if relaxation is None or (asked.kind != APPROVE and "default" not in call.arguments):
            return None
        if relaxation.above and await self._is_above(relaxation.above, call.input):
            return None
        return Shortcut(place, relaxation.every, {"approved": True} if asked.kind == APPROVE else call.arguments["default"])

    async def _is_above(self, rule: str, given: Any) -> bool:
        """Whether people are asked because of the input: also where the rule fails on it."""
        try:
            return (await self._evaluator.evaluate([rule], given))[0] not in (None, False)
        except ExpressionFailed:
            return True


def _answer(checkpoint: Checkpoint, said: Mapping[str, Any], key: StepKey) -> Any:
    if checkpoint.state == "expired":
        if "default" not in said:
            raise standard_error("timeout", "nobody answered in time", key.pointer)
        return said["default"]
    if checkpoint.kind == APPROVE and not checkpoint.answer["approved"]:
        reason = checkpoint.answer.get("reason", "")
        raise own_error("denied", 403, "Denied", f"a person denied it{': ' + reason if reason else ''}", key.pointer)
    return checkpoint.answer


def _schema(kind: str, said: Mapping[str, Any], key: StepKey) -> Mapping[str, Any]:
    """The JSON Schema of the answer. Raises WorkflowError."""
    if kind == APPROVE:
        return APPROVAL_SCHEMA
    if kind == CHOOSE:
        options = said.get("options")
        if not isinstance(options, list) or not 0 < len(options) <= OPTIONS_MAX:
            raise standard_error("validation", f"`options` is no list of 1 to {OPTIONS_MAX} values", key.pointer)
        texts = {"type": "string"} if all(isinstance(option, str) for option in options) else {}
        return {**texts, "enum": options}
    schema = said.get("schema", {} if kind == SIGNAL else None)
    if not isinstance(schema, Mapping):
        raise standard_error("validation", "`schema` is no JSON Schema", key.pointer)
    try:
        check_schema(schema)
    except BadSchema as error:
        raise standard_error("validation", f"`schema` is no JSON Schema: {error}", key.pointer) from error
    return schema


def _escalation(said: Mapping[str, Any], now: int, key: StepKey) -> Escalation | None:
    """`escalate: {after, to: {roles, permissions}}` of a checkpoint. Raises WorkflowError."""
    if "escalate" not in said:
        return None
    try:
        written = msgspec.convert(said["escalate"], _Escalate)
        after = milliseconds_of(written.after)
    except (msgspec.ValidationError, ValueError) as error:
        raise standard_error("validation", f"`escalate` can't be read: {error}", key.pointer) from error
    if not written.to.roles and not written.to.permissions:
        raise standard_error("validation", "`escalate.to` names no roles and no permissions", key.pointer)
    return Escalation(now + after * 1000, written.to.roles, written.to.permissions)


def _prompt(said: Mapping[str, Any], key: StepKey, member: str) -> str:
    prompt = said.get(member)
    if not isinstance(prompt, str) or not 0 < len(prompt) <= PROMPT_MAX:
        raise standard_error("validation", f"`{member}` is no text of 1 to {PROMPT_MAX} characters", key.pointer)
    if "\0" in prompt:  # PostgreSQL stores no NUL in text
        raise standard_error("validation", f"`{member}` has a NUL character", key.pointer)
    return prompt


def _milliseconds(said: Mapping[str, Any], key: StepKey) -> int:
    try:
        return milliseconds_of(str(said.get("expires", EXPIRES)))
    except ValueError as error:
        raise standard_error("validation", "`expires` is no duration", key.pointer) from error
