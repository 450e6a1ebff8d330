"""Effects of calls on subjects, as operators declared them for tools and skills."""

from collections.abc import Mapping
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from adapters.task import Message
from policies.delegation.facts import SubjectEffect
from policies.delegation.terms import Terms
from registry.cards.effects import EffectDeclaration, SubjectMissing


def with_effect(
    terms: Terms,
    declared: EffectDeclaration | None,
    arguments: Mapping[str, Any],
    *,
    until: int = 0,
    has_own_task: bool = False,
    continues_task: str = "",
) -> Terms:
    """The terms of a call with its declared effect. `until`: when a tool call ends at the latest, in microseconds since 1970."""
    if declared is None:
        return terms
    subject = field = problem = ""
    try:
        subject = declared.subject_of(arguments)
    except SubjectMissing as missing:
        field, problem = missing.field, missing.problem
    effect = SubjectEffect(
        subject=subject,
        effect=declared.effect,
        purpose=declared.purpose,
        priority=declared.priority,
        is_claim=declared.claim,
        cool_down=declared.cool_down,
        is_once=declared.once,
        until=until,
        has_own_task=has_own_task,
        continues_task=continues_task,
        missing_field=field,
        missing_problem=problem,
    )
    return replace(terms, effect=effect)


def arguments_of_message(message: Message) -> dict[str, Any]:
    """The members of a message's data parts. Of a member that two parts give differently none counts, since the agent may use either."""
    found: dict[str, Any] = {}
    differing: set[str] = set()
    for part in message.parts:
        if part.data is UNSET or not isinstance(part.data, Mapping):
            continue
        for name, value in part.data.items():
            if name in found and found[name] != value:
                differing.add(name)
            found[name] = value
    return {name: value for name, value in found.items() if name not in differing}
