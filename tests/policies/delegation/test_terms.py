"""Terms of an act: what people's answers, sensitivity and taint, and the history make of it."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from policies.delegation.approval import Approval, Requester, exact_content_of
from policies.delegation.history import SENSITIVITY_MAX, History, HistoryMark
from policies.delegation.terms import APPROVAL_NEEDED, DEFAULT_TERMS, Terms

ERRAND = Requester("acme", "acme|idp|alice", ("support", "sales"), "x1", "t1")
WHAT = exact_content_of({"amount": 5}, "d1")
APPROVAL = Approval(
    "ap_1", ERRAND, "tool:crm.refund", "d1", WHAT.arguments_hash, ("large", "night"), "approved", 1000, approvers=("acme|idp|carol",)
)
NOW = 999


def answered(terms: Terms, *policies: str, permission: str = "tool:crm.refund") -> tuple[str, str]:
    return terms.approval_outcome(ERRAND, permission, policies or ("large",), NOW)


def said(**changes: Any) -> Terms:
    return Terms(content=WHAT, approval=replace(APPROVAL, **changes))


def test_an_act_that_people_allowed_may_be_done() -> None:
    assert answered(said()) == ("", "")
    assert answered(said(), "large", "night") == ("", "")


def test_an_act_that_nobody_was_shown_is_asked() -> None:
    assert APPROVAL_NEEDED == "approval-needed"  # as callers read it
    assert answered(DEFAULT_TERMS) == answered(Terms(content=WHAT)) == (APPROVAL_NEEDED, "")
    assert answered(Terms(approval=APPROVAL)) == answered(Terms(approval_id="ap_1")) == (APPROVAL_NEEDED, "")


def test_an_approval_that_is_named_and_not_there_is_not_known() -> None:
    assert answered(Terms(content=WHAT, approval_id="ap_9")) == ("approval-unknown", "")


def test_one_that_is_not_about_this_act_says_why() -> None:
    assert answered(said(), permission="tool:crm.delete") == ("approval-other-act", "")
    assert answered(said(state="used")) == ("approval-used", "")
    assert answered(said(expires=NOW)) == ("approval-expired", "")


def test_a_denial_is_passed_on_with_what_was_said() -> None:
    assert answered(said(state="denied", reason="too much")) == ("approval-denied", "too much")


@pytest.mark.parametrize("changes", [{"state": "pending"}, {"policies": ("large",)}, {"policies": ()}])
def test_what_nobody_decided_or_another_policy_asks_is_asked(changes: dict[str, Any]) -> None:
    assert answered(said(reason="a note", **changes), "large", "night") == (APPROVAL_NEEDED, "")


@pytest.mark.parametrize(("agreed", "needed", "enough"), [(0, 1, False), (1, 1, True), (1, 2, False), (2, 2, True), (3, 2, True)])
def test_as_many_have_to_have_allowed_it_as_the_policies_of_now_want(agreed: int, needed: int, enough: bool) -> None:
    terms = said(approvers=tuple(f"acme|idp|{number}" for number in range(agreed)), approvals_needed=1)
    assert terms.approval_outcome(ERRAND, "tool:crm.refund", ("large",), NOW, needed) == ("" if enough else APPROVAL_NEEDED, "")


def cleared(**levels: int) -> Callable[[str, str], int]:
    def now(tenant: str, agent: str) -> int:
        assert tenant == "acme"
        return levels.get(agent, SENSITIVITY_MAX)

    return now


def test_no_agent_on_the_way_hears_what_it_is_not_cleared_for() -> None:
    secret = Terms(sensitivity=2)
    assert secret.find_clearance_excess(ERRAND, "crm", cleared(support=2, sales=2)) is None
    assert secret.find_clearance_excess(ERRAND, "crm", cleared(sales=1)) == ("sensitivity-exceeds-clearance", "clearance 2 (agent sales)")
    assert secret.find_clearance_excess(ERRAND, "crm", cleared(support=0)) == (
        "sensitivity-exceeds-clearance",
        "clearance 2 (agent support)",
    )
    assert secret.find_clearance_excess(replace(ERRAND, chain=()), "crm", cleared(support=0)) is None
    assert DEFAULT_TERMS.find_clearance_excess(ERRAND, "crm", cleared(support=0, sales=0)) is None


def tainted(clearance: int, taint: int | None) -> Terms:
    return Terms(clearance=clearance, history=None if taint is None else History(taint=taint))


def test_nobody_is_told_by_an_errand_that_has_seen_more_than_they_may_know() -> None:
    for clearance in range(SENSITIVITY_MAX + 1):
        for taint in range(SENSITIVITY_MAX + 1):
            found = tainted(clearance, taint).find_clearance_excess(ERRAND, "mail", cleared())
            assert found == (None if clearance >= taint else ("taint-exceeds-clearance", f"clearance {taint} (mail)"))


def test_what_an_errand_has_seen_may_be_the_worst_where_it_is_not_known() -> None:
    assert tainted(2, None).find_clearance_excess(ERRAND, "mail", cleared()) == ("taint-exceeds-clearance", "clearance 3 (mail)")
    assert tainted(SENSITIVITY_MAX, None).find_clearance_excess(ERRAND, "mail", cleared()) is None
    assert tainted(0, None).find_clearance_excess(replace(ERRAND, txn=""), "mail", cleared()) is None  # it has seen nothing yet


@pytest.mark.parametrize("amount", [0, 1, 1 << 70])
def test_whole_numbers_can_be_added_up(amount: int) -> None:
    assert DEFAULT_TERMS.has_countable_arguments({"amount"}, {"amount": amount, "note": "x"})


@pytest.mark.parametrize("amount", [-1, 1.0, "1", None, True, False, [1]])
def test_nothing_else_can_be(amount: Any) -> None:
    assert not DEFAULT_TERMS.has_countable_arguments({"other", "amount"}, {"amount": amount, "other": 1})


def test_what_is_not_given_counts_as_nothing() -> None:
    assert (
        DEFAULT_TERMS.has_countable_arguments({"amount"}, None)
        and DEFAULT_TERMS.has_countable_arguments({"amount"}, {})
        and DEFAULT_TERMS.has_countable_arguments((), {"amount": "x"})
    )
    assert Terms(history=History(4)).history_mark(True, {"amount"}, None) == HistoryMark(4, {"amount": 0}, 0)


def test_an_act_leaves_what_it_adds_to_the_sums_of_its_errand() -> None:
    terms = Terms(1, history=History(4, 2, {"amount": 5, "hours": 1}))
    assert terms.history_mark(True, {"amount", "seats"}, {"amount": 7, "seats": 2, "note": 9}) == HistoryMark(
        4, {"amount": 12, "hours": 1, "seats": 2}, 1
    )


def test_an_act_that_does_not_depend_on_its_history_leaves_only_what_it_told() -> None:
    assert Terms(2, history=History(4, 2, {"amount": 5})).history_mark(False, {"amount"}, {"amount": 7}) == HistoryMark(None, {}, 2)
    assert Terms(2).history_mark(True, {"amount"}, {"amount": 7}) == HistoryMark(None, {}, 2)


def test_plain_terms_are_of_what_everybody_may_know_and_nobody_was_asked() -> None:
    assert Terms(0, SENSITIVITY_MAX, None, None, None, "") == DEFAULT_TERMS
