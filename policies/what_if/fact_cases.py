"""Facts about a subject, as test cases for policies write them: beside `history`, in the words of `context.facts`."""

from collections.abc import Mapping
from typing import Any, Final

from policies.delegation.facts import SECOND, EffectUnderWay, FactSource, StandingClaim, SubjectFacts

NOW: Final = 10**15  # microseconds since 1970, of every case
MEMBERS: Final = ("holds", "opt_outs", "under_way", "claim", "cool_down", "priority", "since_effect", "since_agent", "values")


class BadFacts(ValueError):
    """The facts of a case are invalid; the message is for its author."""


def parse_facts(document: Any) -> tuple[SubjectFacts, int]:
    """The facts, and the priority of the act. `claim` and `cool_down` are the priorities of others. Raises BadFacts."""
    if not isinstance(document, Mapping) or set(document) - set(MEMBERS):
        raise BadFacts(f"facts must be a mapping with some of {', '.join(MEMBERS)}")
    claims = [
        StandingClaim("*", _whole_number(document, name), name == "cool_down", FactSource(NOW))
        for name in ("claim", "cool_down")
        if name in document
    ]
    values = document.get("values", {})
    if not isinstance(values, Mapping) or not all(isinstance(value, str | int) for value in values.values()):
        raise BadFacts("facts.values must map names to texts or whole numbers")
    facts = SubjectFacts(
        now=NOW,
        holds=dict.fromkeys(_texts(document, "holds"), FactSource(NOW)),
        opt_outs=dict.fromkeys(_texts(document, "opt_outs"), FactSource(NOW)),
        claims=tuple(claims),
        last_effects=_sources(document, "since_effect"),
        last_agents=_sources(document, "since_agent"),
        values={name: value for name, value in values.items() if isinstance(value, str)},
        numbers={name: value for name, value in values.items() if type(value) is int},
        sources=dict.fromkeys(values, FactSource(NOW)),
        under_way=tuple(EffectUnderWay(name, "", (), "", FactSource(NOW)) for name in _texts(document, "under_way")),
    )
    return facts, _whole_number(document, "priority") if "priority" in document else 0


def _sources(document: Mapping[str, Any], name: str) -> dict[str, FactSource]:
    """The moments of what was last done, from seconds before now by name."""
    found = document.get(name, {})
    if not isinstance(found, Mapping) or not all(type(seconds) is int and seconds >= 0 for seconds in found.values()):
        raise BadFacts(f"facts.{name} must map names to whole numbers of seconds")
    return {key: FactSource(NOW - seconds * SECOND) for key, seconds in found.items()}


def _texts(document: Mapping[str, Any], name: str) -> list[str]:
    found = document.get(name, [])
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise BadFacts(f"facts.{name} must be a list of texts")
    return found


def _whole_number(document: Mapping[str, Any], name: str) -> int:
    found = document[name]
    if type(found) is not int or not 0 <= found <= 1000:
        raise BadFacts(f"facts.{name} must be a priority from 0 to 1000")
    return found
