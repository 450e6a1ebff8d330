"""Terms of one act: what people said of it, what its errand did and saw before, and how sensitive what it tells is."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from msgspec import Struct

from policies.delegation.approval import Approval, Errand, Exact
from policies.delegation.history import HIGHEST, History, Mark

ASKS = "approval-needed"
Excess = tuple[str, str]  # reason_id, and what is missing


class Terms(Struct, frozen=True):
    """`history` is there where a policy wants to know it, or whom to tell is not cleared for everything; `exact` with what people said."""

    sensitivity: int = 0  # of what will be told, 0..3
    clearance: int = HIGHEST  # of whom it is told
    history: History | None = None
    exact: Exact | None = None
    approval: Approval | None = None
    named: str = ""  # the approval that the caller means
    begun: str = ""  # the decision that the act goes on from
    goes_on: str = ""  # the same, where the act was counted with that and is not counted again

    def answered(self, errand: Errand, permission: str, policies: Collection[str], now: int, needed: int = 1) -> tuple[str, str]:
        """(reason_id, what was said) of an act that `policies` ask about: ASKS while nobody decided, nothing once people allowed it.

        `needed`: how many have to allow it, by the policies of now.
        """
        if self.exact is None or (self.approval is None and not self.named):
            return ASKS, ""
        if self.approval is None:
            return "approval-unknown", ""
        unfit = self.approval.unfit(errand, permission, self.exact, now, self.begun)
        if unfit:
            return unfit, ""
        if self.approval.state == "denied":
            return "approval-denied", self.approval.reason
        allowed = self.approval.state in ("approved", "used") and set(policies) <= set(self.approval.policies)
        return ("" if allowed and len(self.approval.approvers) >= needed else ASKS), ""

    def excess(self, errand: Errand, target: str, clearance_now: Callable[[str, str], int]) -> Excess | None:
        """Why what is sensitive would reach somebody who may not know it: an agent that hears the answer, or whoever is asked."""
        for agent in errand.chain:
            if clearance_now(errand.tenant, agent) < self.sensitivity:
                return "sensitivity-exceeds-clearance", f"clearance {self.sensitivity} (agent {agent})"
        if errand.txn:
            taint = HIGHEST if self.history is None else self.history.taint  # what is not known may be the worst
            if self.clearance < taint:
                return "taint-exceeds-clearance", f"clearance {taint} ({target})"
        return None

    def countable(self, totals: Collection[str], arguments: Mapping[str, Any] | None) -> bool:
        """Whether what is to be added up are whole numbers, none below zero, which would make room for more."""
        given = arguments or {}
        return all(type(given[name]) is int and given[name] >= 0 for name in totals if name in given)

    def mark(self, recalled: bool, totals: Collection[str], arguments: Mapping[str, Any] | None) -> Mark:
        """What the act, once allowed, leaves in the history. `recalled`: the ruling depends on what happened before."""
        if self.history is None or not recalled:
            return Mark(taint=self.sensitivity)
        before, given = self.history.totals, arguments or {}
        grown = {name: before.get(name, 0) + given.get(name, 0) for name in totals}
        return Mark(self.history.version, {**before, **grown}, self.sensitivity)


PLAIN = Terms()
