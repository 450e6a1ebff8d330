"""Terms of one act: what people said of it, what its errand did and saw before, and how sensitive what it tells is."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from msgspec import Struct

from policies.delegation.approval import Approval, ExactContent, Requester
from policies.delegation.history import SENSITIVITY_MAX, History, HistoryMark

APPROVAL_NEEDED = "approval-needed"
Excess = tuple[str, str]  # reason_id, and what is missing


class Terms(Struct, frozen=True):
    """`history` is there where a policy wants to know it, or whom to tell is not cleared for everything; `exact` with what people said."""

    sensitivity: int = 0  # of what will be told, 0..3
    clearance: int = SENSITIVITY_MAX  # of whom it is told
    history: History | None = None
    content: ExactContent | None = None
    approval: Approval | None = None
    approval_id: str = ""  # the approval that the caller means
    continues_decision_id: str = ""  # the decision that the act goes on from
    counted_with_decision_id: str = ""  # the same, where the act was counted with that and is not counted again

    def approval_outcome(
        self, requester: Requester, permission: str, policies: Collection[str], now: int, approvals_needed: int = 1
    ) -> tuple[str, str]:
        """(reason_id, what was said) of an act that `policies` ask about: ASKS while nobody decided, nothing once people allowed it.

        `needed`: how many have to allow it, by the policies of now.
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
        """Why what is sensitive would reach somebody who may not know it: an agent that hears the answer, or whoever is asked."""
        for agent in requester.chain:
            if clearance_now(requester.tenant, agent) < self.sensitivity:
                return "sensitivity-exceeds-clearance", f"clearance {self.sensitivity} (agent {agent})"
        if requester.txn:
            taint = SENSITIVITY_MAX if self.history is None else self.history.taint  # what is not known may be the worst
            if self.clearance < taint:
                return "taint-exceeds-clearance", f"clearance {taint} ({target})"
        return None

    def has_countable_arguments(self, total_names: Collection[str], arguments: Mapping[str, Any] | None) -> bool:
        """Whether what is to be added up are whole numbers, none below zero, which would make room for more."""
        given = arguments or {}
        return all(type(given[name]) is int and given[name] >= 0 for name in total_names if name in given)

    def history_mark(self, depends_on_history: bool, total_names: Collection[str], arguments: Mapping[str, Any] | None) -> HistoryMark:
        """What the act, once allowed, leaves in the history. `recalled`: the ruling depends on what happened before."""
        if self.history is None or not depends_on_history:
            return HistoryMark(taint=self.sensitivity)
        before, given = self.history.totals, arguments or {}
        grown = {name: before.get(name, 0) + given.get(name, 0) for name in total_names}
        return HistoryMark(self.history.version, {**before, **grown}, self.sensitivity)


DEFAULT_TERMS = Terms()
