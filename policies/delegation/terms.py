"""Terms of one act: its approval, the history of its transaction, and the sensitivity and clearance that apply."""

import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from policies.delegation.approval import Approval, ExactContent, Requester
from policies.delegation.facts import EffectMark, SubjectEffect, SubjectFacts
from policies.delegation.history import SENSITIVITY_MAX, History, HistoryMark

APPROVAL_NEEDED = "approval-needed"
CLAIM_RULE = "inv-claim"  # of policies/rules/invariants.cedar
_encode_canonical = msgspec.json.Encoder(order="sorted").encode
Excess = tuple[str, str]  # reason_id, and the missing clearance


class Terms(Struct, frozen=True):
    """What a ruling depends on beside act and caller.

    `history` is set where a policy needs it or the target is not cleared for everything; `content` where the act has an approval.
    """

    sensitivity: int = 0  # of the result, 0..3
    clearance: int = SENSITIVITY_MAX  # of the target that the act sends data to
    history: History | None = None
    content: ExactContent | None = None
    approval: Approval | None = None
    approval_id: str = ""  # the approval that the caller refers to
    continues_decision_id: str = ""  # the decision that the act continues
    effect: SubjectEffect | None = None  # on the subject that the act is about
    facts: SubjectFacts | None = None  # about that subject
    counted_with_decision_id: str = ""  # the decision that the act was counted with, so that it is not counted again

    def approval_outcome(
        self, requester: Requester, permission: str, policies: Collection[str], now: int, approvals_needed: int = 1
    ) -> tuple[str, str]:
        """The reason_id and comment for an act that needs approval by `policies`.

        The reason_id is APPROVAL_NEEDED while votes are missing, and empty once the act is approved. `approvals_needed`: the number of
        approvals that the current policies require.
        """
        if self.content is None or (self.approval is None and not self.approval_id):
            return APPROVAL_NEEDED, ""
        if self.approval is None:
            return "approval-unknown", ""
        unfit = self.approval.mismatch_reason(requester, permission, self.content, now, self.continues_decision_id)
        if unfit:
            return unfit, ""
        if self.approval.state == "denied":
            return "approval-denied", self.approval.reason
        allowed = self.approval.state in ("approved", "used") and set(policies) <= set(self.approval.policies)
        return ("" if allowed and len(self.approval.approvers) >= approvals_needed else APPROVAL_NEEDED), ""

    def find_clearance_excess(self, requester: Requester, target: str, clearance_now: Callable[[str, str], int]) -> Excess | None:
        """The reason_id and missing clearance where sensitive data would reach an agent or target that is not cleared for it; else None."""
        for agent in requester.chain:
            if clearance_now(requester.tenant, agent) < self.sensitivity:
                return "sensitivity-exceeds-clearance", f"clearance {self.sensitivity} (agent {agent})"
        if requester.txn:
            taint = SENSITIVITY_MAX if self.history is None else self.history.taint  # an unknown history may be as sensitive as possible
            if self.clearance < taint:
                return "taint-exceeds-clearance", f"clearance {taint} ({target})"
        return None

    def has_countable_arguments(self, total_names: Collection[str], arguments: Mapping[str, Any] | None) -> bool:
        """Whether all arguments to be added up are whole numbers of at least zero: a negative one would raise the limit."""
        present = arguments or {}
        return all(type(present[name]) is int and present[name] >= 0 for name in total_names if name in present)

    def reason_of_forbid(self, policies: Collection[str]) -> str:
        """Why policies forbid an act: a claim, if the built-in rule on claims does, else a policy."""
        if CLAIM_RULE not in policies or self.facts is None:
            return "policy-forbids"
        return "claim-denied" if any(not claim.is_cooling for claim in self.facts.claims) else "cool-down"

    def effect_mark(self) -> EffectMark | None:
        """The mark of the allowed act on its subject; None for an act without a declared effect."""
        if self.effect is None or self.facts is None:
            return None
        return EffectMark(self.facts.version, self.effect, self.continues_decision_id)

    def facts_digest(self, with_subject: bool) -> str:
        """A digest of what policies see of the effect, the facts and, if they read it, the subject; empty without facts."""
        effect, facts = self.effect, self.facts
        if effect is None or facts is None:
            return ""
        seen = (effect.effect, effect.subject if with_subject else "", facts.to_policy_context(effect.priority))
        return hashlib.sha256(_encode_canonical(seen)).hexdigest()

    def history_mark(self, depends_on_history: bool, total_names: Collection[str], arguments: Mapping[str, Any] | None) -> HistoryMark:
        """The mark of the allowed act. `depends_on_history`: whether the ruling depended on the history."""
        if self.history is None or not depends_on_history:
            return HistoryMark(taint=self.sensitivity)
        totals, present = self.history.totals, arguments or {}
        grown = {name: totals.get(name, 0) + present.get(name, 0) for name in total_names}
        return HistoryMark(self.history.version, {**totals, **grown}, self.sensitivity)


DEFAULT_TERMS = Terms()
