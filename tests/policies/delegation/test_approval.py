"""An approval is good for the very act that was shown, and for whatever differs in anything it says why not."""

from typing import Any

import pytest
from msgspec.structs import replace

from policies.cedar.schema import RESOURCE_KINDS
from policies.delegation.approval import (
    APPROVABLE_ACTIONS,
    DECIDE_APPROVALS,
    SHOWN_MAX,
    Approval,
    ExactContent,
    NotShowable,
    Requester,
    decode_arguments,
    description_of,
    exact_content_of,
)
from policies.what_if.acts import act_of_permission
from tests.house.source import ROOT

ERRAND = Requester("acme", "acme|idp|alice", ("support", "sales"), "x1", "t1")
WHAT = exact_content_of({"amount": 5, "to": "bob"}, "d1")
APPROVAL = Approval("ap_1", ERRAND, "tool:crm.refund", "d1", WHAT.arguments_hash, ("large",), "approved", 1000)
NOW = 999


def unfit(
    approval: Approval = APPROVAL,
    errand: Requester = ERRAND,
    permission: str = "tool:crm.refund",
    what: ExactContent = WHAT,
    now: int = NOW,
) -> str:
    return approval.mismatch_reason(errand, permission, what, now)


def test_it_is_good_for_what_was_shown() -> None:
    assert unfit() == ""
    assert all(unfit(replace(APPROVAL, state=state)) == "" for state in ("approved", "pending", "denied"))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"errand": replace(ERRAND, tenant="evil")}, "approval-unknown"),
        ({"errand": replace(ERRAND, owner="acme|idp|bob")}, "approval-unknown"),
        ({"permission": "tool:crm.delete"}, "approval-other-act"),
        ({"errand": replace(ERRAND, chain=("support",))}, "approval-other-chain"),
        ({"errand": replace(ERRAND, chain=("sales", "support"))}, "approval-other-chain"),
        ({"errand": replace(ERRAND, task_id="t2")}, "approval-other-task"),
        ({"errand": replace(ERRAND, task_id="")}, "approval-other-task"),
        ({"what": exact_content_of({"amount": 6, "to": "bob"}, "d1")}, "approval-other-arguments"),
        ({"what": exact_content_of({"amount": 5, "to": "bob"}, "d2")}, "approval-other-definition"),
        ({"approval": replace(APPROVAL, state="used")}, "approval-used"),
        ({"approval": replace(APPROVAL, state="expired")}, "approval-expired"),
        ({"approval": replace(APPROVAL, state="void")}, "approval-expired"),
        ({"now": 1000}, "approval-expired"),
        ({"now": 1001}, "approval-expired"),
    ],
)
def test_for_anything_else_it_says_why_not(given: dict[str, Any], reason: str) -> None:  # attack DLG-13
    assert unfit(**given) == reason


def test_a_call_of_no_task_is_known_by_its_errand() -> None:
    direct = replace(APPROVAL, requester=replace(ERRAND, task_id=""))
    assert unfit(direct, direct.requester) == ""
    assert unfit(direct, replace(direct.requester, txn="x2")) == "approval-other-task"
    assert unfit(APPROVAL, replace(ERRAND, txn="x2")) == ""  # no task is of two errands


def test_the_hash_is_that_of_the_canonical_form() -> None:
    assert exact_content_of({"to": "bob", "amount": 5.0}, "d1") == WHAT
    assert WHAT.arguments == '{"amount":5,"to":"bob"}'
    assert decode_arguments(WHAT.arguments) == {"amount": 5, "to": "bob"} and decode_arguments("") is None


@pytest.mark.parametrize("arguments", [{"n": float("nan")}, {"n": 2**60}, {"a": {1, 2}}])
def test_what_nobody_can_be_shown_nobody_approves_of(arguments: dict[str, Any]) -> None:
    with pytest.raises(NotShowable):
        exact_content_of(arguments, "d1")


@pytest.mark.parametrize(
    ("definition", "said"),
    [({"description": "Pays", "name": "refund"}, "Pays"), ({"description": "x" * 4001}, "x" * 4000), ({"description": 5}, ""), ({}, "")],
)
def test_a_definition_says_what_it_is_in_short(definition: dict[str, Any], said: str) -> None:
    assert description_of(definition) == said


def test_people_are_asked_about_four_kinds_of_acts() -> None:
    assert {"callTool", "getPrompt", "readResource", "invokeAgent"} == APPROVABLE_ACTIONS


def test_an_approval_needs_one_person_who_has_said_nothing_yet() -> None:
    assert replace(APPROVAL, prompt="", reason="", approvals_needed=1, approvers=()) == APPROVAL


def test_deciding_is_an_act_that_is_ruled_on_as_its_permission_is() -> None:
    assert (DECIDE_APPROVALS.permission, DECIDE_APPROVALS.resource, DECIDE_APPROVALS.parent) == (
        "approval:decide",
        "approvals",
        "approvals",
    )
    named = act_of_permission(DECIDE_APPROVALS.permission)
    assert DECIDE_APPROVALS.action == named.action and DECIDE_APPROVALS.kind in RESOURCE_KINDS[DECIDE_APPROVALS.action]


def test_more_than_people_read_can_not_be_shown() -> None:
    whole = {"text": "x" * (SHOWN_MAX - len('{"text":""}'))}
    assert len(exact_content_of(whole, "d1").arguments) == SHOWN_MAX
    assert not shows({"text": f"{whole['text']}x"})
    assert f"at most {SHOWN_MAX:,} characters" in (ROOT / "docs" / "approvals.md").read_text()


def shows(arguments: dict[str, Any]) -> bool:
    try:
        return bool(exact_content_of(arguments, "d1").arguments)
    except NotShowable:
        return False


def test_arguments_without_end_are_not_shown() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    assert not shows(endless) and shows({})


def test_what_is_sent_beside_the_arguments_is_part_of_what_is_approved() -> None:  # attack DLG-13
    more = exact_content_of({"amount": 5, "to": "bob"}, "d1", {"force": True})
    assert (more.arguments, more.other_members) == (WHAT.arguments, '{"force":true}')
    assert unfit(what=more) == "approval-other-arguments"
    assert exact_content_of({"amount": 5, "to": "bob"}, "d1", {}) == WHAT
    nested = exact_content_of({"arguments": {"amount": 5, "to": "bob"}, "force": True}, "d1")
    assert (
        len({WHAT.arguments_hash, more.arguments_hash, nested.arguments_hash, exact_content_of({"force": True}, "d1").arguments_hash}) == 4
    )
    with pytest.raises(NotShowable):
        exact_content_of({"a": "x" * (SHOWN_MAX - 8)}, "d1", {"b": 1})
    with pytest.raises(NotShowable):
        exact_content_of({}, "d1", {"b": float("nan")})


def test_what_used_it_may_go_on_in_time_and_nothing_else() -> None:  # attack DLG-13
    used = replace(APPROVAL, state="used", used_by="d_1")
    assert used.mismatch_reason(ERRAND, "tool:crm.refund", WHAT, NOW, "d_1") == ""
    assert (
        used.mismatch_reason(ERRAND, "tool:crm.refund", WHAT, NOW, "d_2")
        == used.mismatch_reason(ERRAND, "tool:crm.refund", WHAT, NOW)
        == "approval-used"
    )
    assert used.mismatch_reason(ERRAND, "tool:crm.refund", exact_content_of({}, "d1"), NOW, "d_1") == "approval-other-arguments"
    assert used.mismatch_reason(ERRAND, "tool:crm.refund", WHAT, 1000, "d_1") == "approval-expired"
    unnamed = replace(used, used_by="")
    assert unnamed.mismatch_reason(ERRAND, "tool:crm.refund", WHAT, NOW, "") == "approval-used"


def test_what_was_begun_in_time_can_be_asked_for_later() -> None:
    lasting = replace(APPROVAL, state="used", used_by="d_1").for_follow_up()
    assert lasting.mismatch_reason(ERRAND, "tool:crm.refund", WHAT, 1 << 60, "d_1") == "" and lasting.id == ""
