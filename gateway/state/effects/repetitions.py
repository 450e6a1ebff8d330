"""Work on a subject that is not done twice: a repetition joins the task that does it, or is refused."""

from msgspec.structs import replace

from adapters.a2a_client.wire.v1 import BadMessage
from gateway.state.claims.claim import Holder
from gateway.state.effects.reading import EffectCaller
from policies.callers import Caller
from policies.delegation.facts import EffectUnderWay, FactNote, SubjectEffect, SubjectFacts
from policies.delegation.rulings import Denial, Grant

UNDER_WAY = "under-way"


class EffectSubjectMissing(BadMessage):
    """The arguments of a call do not name its subject, although an operator declared that it has one."""

    def __init__(self, effect: SubjectEffect) -> None:
        super().__init__(effect.missing_field, effect.missing_problem)


class TaskUnderWay(Exception):
    """The same work is under way for the caller, in the task `task_id`."""

    def __init__(self, task_id: str) -> None:
        super().__init__(task_id)
        self.task_id = task_id


def effect_caller_of(caller: Caller, continues_decision_id: str) -> EffectCaller:
    """The caller as it acts now, which has the effect of a call."""
    held = caller.delegation
    holder = Holder(caller.principal.owner_key, tuple(hop.agent for hop in held.path), held.task_id, held.txn)
    return EffectCaller(caller.principal.tenant, holder, continues_decision_id)


def rule_on_repetition(grant: Grant, facts: SubjectFacts) -> Grant | Denial:
    """The ruling on an allowed act that is not to be done twice: a denial while the same is under way.

    Raises TaskUnderWay where the caller's own chain has a task that does it.
    """
    effect = grant.effect_mark.effect if grant.effect_mark is not None else None
    same = [each for each in facts.under_way if effect is not None and (each.effect, each.purpose) == (effect.effect, effect.purpose)]
    if not same or effect is None:
        return grant
    decision, chain = grant.decision, tuple(hop.agent for hop in grant.delegation.path)
    own = [each for each in same if each.task_id and each.source.owner == decision.principal and each.chain == chain]
    if own and effect.has_own_task:
        raise TaskUnderWay(own[0].task_id)
    notes = tuple(map(_note_on, same))
    return Denial(replace(decision, allowed=False, reason_id=UNDER_WAY, policies=(), facts=notes))


def _note_on(under_way: EffectUnderWay) -> FactNote:
    source = under_way.source
    return FactNote(UNDER_WAY, under_way.effect, "", source.since, source.until, source.owner, source.agent, source.text)
