"""Facts about the subject of an act, such as customer:42: holds, opt-outs, claims, and what was done last. Read again for each ruling."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from policies.delegation.history import HistoryChanged

SECOND: Final = 1_000_000


class FactsChanged(HistoryChanged):
    """A fact about the subject changed after it was read: the act has to be ruled on again."""


class FactSource(Struct, frozen=True):
    """Since when a fact holds (microseconds since 1970), until when (0: unknown), for whom and by which agent it was set, and a text.

    `sensitivity` (0..3) is that of the value on the board.
    """

    since: int
    owner: str = ""  # tenant|issuer|subject
    agent: str = ""
    until: int = 0
    text: str = ""
    sensitivity: int = 0


class StandingClaim(Struct, frozen=True):
    """A claim of another holder, or a cool-down, that concerns the act."""

    effect: str
    priority: int
    is_cooling: bool
    source: FactSource


class EffectUnderWay(Struct, frozen=True):
    """An effect on the subject that has not ended. `task_id` is the task that it lasts as long as; empty for a tool call."""

    effect: str
    purpose: str
    chain: tuple[str, ...]
    task_id: str
    source: FactSource


class SubjectEffect(Struct, frozen=True):
    """What an act does to a subject, as an operator declared it.

    Where the arguments name no subject, `subject` is empty, and `missing_field` and `missing_problem` say what is wrong. `until`: when a
    tool call ends at the latest (microseconds since 1970). `continues_task`: the task that the act goes on with, and whose effect it is.
    """

    subject: str
    effect: str
    purpose: str = ""
    priority: int = 0
    is_claim: bool = False
    cool_down: int = 0  # seconds
    is_once: bool = False
    until: int = 0
    has_own_task: bool = False
    continues_task: str = ""
    missing_field: str = ""
    missing_problem: str = ""


class SubjectFacts(Struct, frozen=True):
    """What is known of a subject at `now` (microseconds since 1970), as of its `version`. Mappings are by name."""

    version: int = 0
    now: int = 0
    holds: Mapping[str, FactSource] = {}
    opt_outs: Mapping[str, FactSource] = {}
    claims: tuple[StandingClaim, ...] = ()
    last_effects: Mapping[str, FactSource] = {}  # by effect
    last_agents: Mapping[str, FactSource] = {}  # by the agent that had an effect
    values: Mapping[str, str] = {}
    numbers: Mapping[str, int] = {}
    sources: Mapping[str, FactSource] = {}  # of values and numbers
    under_way: tuple[EffectUnderWay, ...] = ()

    def to_policy_context(self, priority: int) -> dict[str, Any]:
        """The facts as policies see them in `context.facts`. `priority` is that of the act."""
        return {
            "holds": list(self.holds),
            "opt_outs": list(self.opt_outs),
            "under_way": sorted({each.effect for each in self.under_way}),
            "claimed_by_other": any(not claim.is_cooling for claim in self.claims),
            "cooling_down": any(claim.is_cooling for claim in self.claims),
            "claim_priority": max((claim.priority for claim in self.claims), default=0),
            "priority": priority,
            "since_effect": {name: self._seconds_since(source) for name, source in self.last_effects.items()},
            "since_agent": {name: self._seconds_since(source) for name, source in self.last_agents.items()},
            "values": dict(self.values),
            "numbers": dict(self.numbers),
        }

    def _seconds_since(self, source: FactSource) -> int:
        return max(0, (self.now - source.since) // SECOND)


NO_FACTS: Final = SubjectFacts().to_policy_context(0)  # of an act without a declared effect


class FactNeeds(Struct, frozen=True):
    """Which facts loaded policies read; None stands for all names.

    `values` are texts and numbers; `last`: whether what was done counts; `subject`: whether the name of the subject counts.
    """

    holds: frozenset[str] | None = frozenset()
    opt_outs: frozenset[str] | None = frozenset()
    values: frozenset[str] | None = frozenset()
    last: bool = False
    subject: bool = False


ALL_FACTS: Final = FactNeeds(None, None, None, last=True, subject=True)


class EffectMark(Struct, frozen=True):
    """What the commit of a decision records about the subject, if its version is still the one that the ruling read."""

    version: int
    effect: SubjectEffect
    continues_decision_id: str = ""


class FactNote(Struct, frozen=True):
    """A fact that a refusal rests on: its kind and name, the policy that read it, and its source.

    `until`: when it no longer stands in the way, if nothing else happens.
    """

    kind: str  # hold | opt-out | claim | cool-down | since-effect | since-agent | value | under-way
    name: str
    policy: str = ""
    since: int = 0
    until: int = 0
    owner: str = ""
    agent: str = ""
    text: str = ""
