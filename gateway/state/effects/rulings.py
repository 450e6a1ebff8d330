"""Rulings on acts with a declared effect, by the facts about their subject."""

from msgspec.structs import replace

from gateway.state.effects.repetitions import EffectSubjectMissing, effect_caller_of, rule_on_repetition
from gateway.state.effects.store import SubjectEffects
from policies.authority import Authority, RulingRequest
from policies.callers import Caller
from policies.delegation.facts import SubjectEffect
from policies.delegation.rulings import Denial, Grant, Ruling


async def rule_on_effect(
    authority: Authority, effects: SubjectEffects, caller: Caller, request: RulingRequest, declared: SubjectEffect
) -> tuple[RulingRequest, Ruling]:
    """Returns the request with the facts about its subject, and its ruling. Raises EffectSubjectMissing and TaskUnderWay.

    A caller that may not do the act is refused, and does not learn whether its arguments name a subject.
    """
    who = effect_caller_of(caller, request.terms.continues_decision_id)
    recalled = effects.recall(who, declared, authority.fact_needs())
    if recalled is not None:
        known = replace(request, terms=replace(request.terms, facts=recalled))
        if isinstance(ruling := without_repetition(known, authority.rule(caller, known)), Grant):
            return known, ruling
    effect, facts = await effects.read(who, declared, authority.fact_needs())
    request = replace(request, terms=replace(request.terms, effect=effect, facts=facts))
    ruling = authority.rule(caller, request)
    if facts is None and not isinstance(ruling, Denial):
        raise EffectSubjectMissing(effect)
    return request, without_repetition(request, ruling)


def without_repetition(request: RulingRequest, ruling: Ruling) -> Ruling:
    """The ruling, or a denial where it grants work that is done once and is under way. An approval does not lift that.

    Raises TaskUnderWay.
    """
    effect, facts = request.terms.effect, request.terms.facts
    if effect is None or facts is None or not effect.is_once or not isinstance(ruling, Grant):
        return ruling
    return rule_on_repetition(ruling, facts)
