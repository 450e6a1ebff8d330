"""Which facts about a subject a policy reads, from its JSON: for the schema, and to say which fact a refusal rests on."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from policies.cedar.syntax import policy_objects, reads_context
from policies.delegation.facts import ALL_FACTS, SECOND, FactNeeds, FactNote, FactSource, SubjectFacts

FACTS: Final[Mapping[str, Any]] = {".": {"left": {"Var": "context"}, "attr": "facts"}}
NAMED_FACTS: Final = ("since_effect", "since_agent", "values", "numbers")
SET_FACTS: Final = ("holds", "opt_outs", "under_way")
CLAIM_FACTS: Final = ("claimed_by_other", "cooling_down", "claim_priority")
_CONTEXT: Final[Mapping[str, Any]] = {"Var": "context"}
_ANY: Final = ""  # a name that no fact has
_MEMBERSHIPS: Final = ("contains", "containsAny", "containsAll")
_COMPARISONS: Final = ("<", "<=", ">", ">=")


class FactReading(Struct, frozen=True):
    """A fact that a policy reads; all of its kind without a `name`. `seconds`: the number that it is compared with, if there is one."""

    kind: str
    name: str = ""
    seconds: int = 0


def fact_readings(policy: Mapping[str, Any]) -> tuple[FactReading, ...]:
    """The facts that a policy reads, each once."""
    return tuple(dict.fromkeys(_readings(policy)))


def fact_names(policies: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The names that policies read of the facts with names, for the schema."""
    found: dict[str, set[str]] = {kind: set() for kind in NAMED_FACTS}
    for policy in policies:
        for reading in _readings(policy):
            if reading.kind in found and reading.name:
                found[reading.kind].add(reading.name)
    return {kind: sorted(names) for kind, names in found.items()}


def fact_needs(policies: Iterable[Mapping[str, Any]]) -> FactNeeds:
    """The facts that any of the policies may read. An expression that uses a set or record as a whole needs all of its names."""
    found: dict[str, set[str]] = {}
    reads_subject = False
    for policy in policies:
        reads_subject = reads_subject or reads_context(policy["conditions"], "subject")
        for kind, name in _needs_of(policy["conditions"]):
            found.setdefault(kind, set()).add(name)
    if _ANY in found:
        return ALL_FACTS
    values = found.get("values", set()) | found.get("numbers", set())
    last = "since_effect" in found or "since_agent" in found
    return FactNeeds(_names(found.get("holds", set())), _names(found.get("opt_outs", set())), _names(values), last, reads_subject)


def _names(found: set[str]) -> frozenset[str] | None:
    return None if _ANY in found else frozenset(found)


def _needs_of(node: Any) -> Iterator[tuple[str, str]]:
    """What an expression reads, as kinds and names of facts, _ANY standing for all of them."""
    if isinstance(node, list):
        for item in node:
            yield from _needs_of(item)
    elif node in (FACTS, _CONTEXT):
        yield _ANY, _ANY
    elif isinstance(node, Mapping):
        for operator, operands in node.items():
            yield from _needs_of_operation(operator, operands)


def _needs_of_operation(operator: str, operands: Any) -> Iterator[tuple[str, str]]:
    left = operands.get("left") if isinstance(operands, Mapping) else None
    kind = _attribute_of(left, FACTS)
    if operator in (".", "has") and (left in (FACTS, _CONTEXT) or kind in NAMED_FACTS):
        if kind:
            yield kind, operands["attr"]
        elif left == FACTS and operator == ".":
            yield operands["attr"], _ANY
    elif operator in _MEMBERSHIPS and kind in SET_FACTS:
        yield from ((kind, name) for name in _texts_of(operands["right"]))
        yield from _needs_of(operands["right"])
    else:
        yield from _needs_of(operands)


def _readings(policy: Mapping[str, Any]) -> Iterator[FactReading]:
    for node in policy_objects(policy):
        yield from _readings_of(node)


def _readings_of(node: Mapping[str, Any]) -> Iterator[FactReading]:
    for operator, operands in node.items():
        if not isinstance(operands, Mapping):
            continue
        left, right = operands.get("left"), operands.get("right")
        if operator in _MEMBERSHIPS and (kind := _attribute_of(left, FACTS)) in SET_FACTS:
            yield from (FactReading(kind, name) for name in _texts_of(right))
        elif operator in (".", "has"):
            yield from _attribute_reading(left, str(operands.get("attr")))
        elif operator in _COMPARISONS and isinstance(left, Mapping) and isinstance(right, Mapping) and type(right.get("Value")) is int:
            yield from (FactReading(each.kind, each.name, right["Value"]) for each in _readings_of(left) if each.kind.startswith("since"))


def _attribute_reading(left: Any, name: str) -> Iterator[FactReading]:
    """The reading of an attribute `name` of `left`: a fact with a name, or one about claims."""
    if (kind := _attribute_of(left, FACTS)) in NAMED_FACTS:
        yield FactReading(kind, name)
    elif left == FACTS and name in CLAIM_FACTS:
        yield FactReading("claims")


def _attribute_of(node: Any, parent: Mapping[str, Any]) -> str:
    """`context.facts.x` -> `x`; anything else -> the empty string."""
    match node:
        case {".": {"left": left, "attr": str(attribute)}} if left == parent:
            return attribute
    return ""


def _texts_of(node: Any) -> list[str]:
    match node:
        case {"Value": str(text)}:
            return [text]
        case {"Set": list(items)}:
            return [text for item in items for text in _texts_of(item)]
    return [""]


def notes_on(policy: str, readings: Iterable[FactReading], facts: SubjectFacts) -> list[FactNote]:
    """The facts that hold now among those that a policy read, the comparisons with numbers of seconds in place of the mere names."""
    found: dict[tuple[str, str], FactNote] = {}
    for reading in readings:
        for kind, name, source in _sources_of(reading, facts):
            until = source.since + reading.seconds * SECOND if reading.seconds else source.until
            if (kind, name) not in found or reading.seconds:
                found[(kind, name)] = FactNote(kind, name, policy, source.since, until, source.owner, source.agent, source.text)
    return list(found.values())


def _sources_of(reading: FactReading, facts: SubjectFacts) -> Iterator[tuple[str, str, FactSource]]:
    match reading.kind:
        case "holds":
            found, kind = facts.holds, "hold"
        case "opt_outs":
            found, kind = facts.opt_outs, "opt-out"
        case "since_effect":
            found, kind = facts.last_effects, "since-effect"
        case "since_agent":
            found, kind = facts.last_agents, "since-agent"
        case "values" | "numbers":
            found, kind = facts.sources, "value"
        case "claims":
            yield from (("cool-down" if claim.is_cooling else "claim", claim.effect, claim.source) for claim in facts.claims)
            return
        case _:
            yield from (("under-way", each.effect, each.source) for each in facts.under_way if reading.name in ("", each.effect))
            return
    yield from ((kind, name, source) for name, source in found.items() if reading.name in ("", name))
