"""What the authority makes of what people said, of what an errand did before, and of how sensitive the answer is."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as with_

from policies.authority import RulingRequest, requester_of
from policies.callers import Caller
from policies.delegation.approval import Approval, ExactContent
from policies.delegation.chain import Hop, Principal
from policies.delegation.history import History, HistoryMark, PriorAct
from policies.delegation.rulings import Act, Question
from policies.delegation.terms import Terms
from tests.fakes.authority import ADA, ALICE, ASKING, MAIL, NORA, ONCE, READ, REFUND, RICK, TOOL, TOTAL, Scene, denied, granted, refund

# what people are asked

EXACT = ExactContent("{}", "hash", "definition")
AGREED = ("acme|https://idp.test|bob", "acme|https://idp.test|carol")


def approval(scene: Scene, caller: Caller, request: RulingRequest, **changed: Any) -> Approval:
    now = int(scene.clock.now * 1_000_000)
    said = Approval("ap1", requester_of(caller, request), request.act.permission, "definition", "hash", ("large",), "approved", now + 1)
    return with_(said, **{"approvers": AGREED, **changed})


def with_approval(request: RulingRequest, said: Approval | None, named: str = "") -> RulingRequest:
    return with_(request, terms=Terms(content=EXACT, approval=said, approval_id=named))


@pytest.fixture
def asking(tmp_path: Path) -> Scene:
    return Scene(tmp_path, ASKING)


def test_what_asks_becomes_a_question(asking: Scene) -> None:
    ruling = asking.authority.rule(asking.caller(), refund(501))
    assert isinstance(ruling, Question)
    assert (ruling.prompt, ruling.approvals_needed, ruling.answer_valid_seconds) == ("sure?", 2, 1800)
    told = ruling.decision
    assert (told.allowed, told.reason_id, told.policies, told.approval) == (False, "approval-needed", ("large",), "")
    again = asking.authority.rule(asking.caller(), refund(501))
    assert isinstance(again, Question) and asking.engine.decided == 1
    assert granted(asking, asking.caller(), refund(500))


def test_what_can_not_be_shown_exactly_is_not_asked(tmp_path: Path) -> None:
    scene = Scene(tmp_path, '@id("sure") @ask("sure?") forbid(principal, action, resource);')
    write = Act("writePolicy", "Key", "grants", "policy:write", "grants")
    ruling = denied(scene, scene.caller(who=ADA), RulingRequest(write, "acme"))
    assert (ruling.decision.reason_id, ruling.decision.policies) == ("policy-forbids", ("sure",))
    assert isinstance(scene.authority.rule(scene.caller(who=ADA), RulingRequest(READ, "acme")), Question)


def test_what_nobody_may_is_not_asked_of_people(asking: Scene) -> None:
    assert denied(asking, asking.caller(who=NORA), refund(501)).decision.reason_id == "user-lacks-permission"


def test_what_people_allowed_is_granted_and_the_approval_is_told(asking: Scene) -> None:
    for caller, request in ((asking.caller(), refund(501)), (asking.caller(Hop("front")), refund(501))):
        grant = granted(asking, caller, with_approval(request, approval(asking, caller, request)))
        assert (grant.decision.approval, grant.decision.approvers) == ("ap1", AGREED)
        assert (grant.decision.reason_id, grant.decision.policies, grant.decision.continues_decision_id) == ("allowed", ("large",), "")


def test_fewer_than_the_policy_wants_now_are_not_enough(asking: Scene) -> None:
    caller, request = asking.caller(), refund(501)
    for approvers in ((), AGREED[:1]):
        ruling = asking.authority.rule(caller, with_approval(request, approval(asking, caller, request, approvers=approvers)))
        assert isinstance(ruling, Question) and (ruling.approvals_needed, ruling.decision.approval) == (2, "")


def test_an_act_that_goes_on_names_the_decision_that_used_its_approval(asking: Scene) -> None:
    caller, request = asking.caller(), refund(501)
    used = with_approval(request, approval(asking, caller, request, state="used", used_by="d_1"))
    assert denied(asking, caller, used).decision.reason_id == "approval-used"
    grant = granted(asking, caller, with_(used, terms=with_(used.terms, continues_decision_id="d_1")))
    assert (grant.decision.approval, grant.decision.continues_decision_id) == ("ap1", "d_1")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"permission": "tool:crm.read"}, "approval-other-act"),
        ({"arguments_hash": "other"}, "approval-other-arguments"),
        ({"definition": "other"}, "approval-other-definition"),
        ({"state": "used"}, "approval-used"),
        ({"state": "denied", "reason": "too much"}, "approval-denied"),
        ({"expires": 1_800_000_000_000_000}, "approval-expired"),
    ],
)
def test_an_approval_is_good_for_the_very_act_alone(asking: Scene, changed: dict[str, Any], reason: str) -> None:  # attack DLG-13
    caller, request = asking.caller(), refund(501)
    ruling = denied(asking, caller, with_approval(request, approval(asking, caller, request, **changed)))
    assert (ruling.decision.reason_id, ruling.note) == (reason, changed.get("reason", ""))
    assert (ruling.decision.approval, ruling.decision.approvers, ruling.is_hidden) == ("", (), False)


def test_an_approval_is_good_for_its_person_chain_task_and_errand_alone(asking: Scene) -> None:  # attack DLG-13
    mine, request = asking.caller(Hop("front")), refund(501)
    other = Principal("acme", ALICE.issuer, "mallory", ("sales",))
    for caller, asked, reason in (
        (asking.caller(Hop("front"), who=other), request, "approval-unknown"),
        (asking.caller(Hop("other")), request, "approval-other-chain"),
        (asking.caller(), request, "approval-other-chain"),
        (mine, refund(501, task_id="t9"), "approval-other-task"),
    ):
        said = approval(asking, mine, request)
        assert denied(asking, caller, with_approval(asked, said)).decision.reason_id == reason
    assert denied(asking, mine, with_approval(request, None, "ap9")).decision.reason_id == "approval-unknown"
    assert isinstance(asking.authority.rule(mine, with_approval(request, None)), Question)


@pytest.mark.parametrize(
    ("task", "txn", "errand"),
    [("", "", ("x0", "t0")), ("t9", "", ("x0", "t9")), ("", "x9", ("x9", "t0")), ("t9", "x9", ("x9", "t9"))],
)
def test_an_errand_is_the_callers_unless_it_is_to_come(scene: Scene, task: str, txn: str, errand: tuple[str, str]) -> None:
    found = requester_of(scene.caller(Hop("front"), Hop("desk")), refund(1, task_id=task, txn=txn))
    assert (found.txn, found.task_id) == errand
    assert (found.tenant, found.owner, found.chain) == ("acme", ALICE.owner_key, ("front", "desk"))


def test_an_act_that_needs_no_approval_uses_none_up(asking: Scene) -> None:  # attack DLG-13
    caller, request = asking.caller(), refund(5)
    mallorys = of_mallory(approval(asking, caller, request))
    assert granted(asking, caller, with_approval(request, mallorys)).decision.approval == ""


def of_mallory(said: Approval) -> Approval:
    return with_(said, requester=with_(said.requester, owner="acme|https://idp.test|mallory"))


# what an errand did before


def test_only_policies_that_look_at_it_recall_what_was_done(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ONCE)
    assert scene.authority.needs_history(REFUND) is True and scene.authority.needs_history(READ) is False


def test_rulings_by_what_was_done_before_are_never_remembered(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ONCE)
    for calls, allowed in (({}, True), ({REFUND.permission: 1}, False), ({}, True)):
        request = refund(1, terms=Terms(history=History(calls=calls)))
        assert scene.authority.rule(scene.caller(), request).decision.allowed is allowed
    assert scene.engine.decided == 3
    assert denied(scene, scene.caller(), refund(1)).decision.reason_id == "policy-error"  # nobody told it


def test_running_totals_are_summed_and_left_behind(tmp_path: Path) -> None:
    scene = Scene(tmp_path, TOTAL)
    before = History(version=3, totals={"amount": 700, "other": 1})
    grant = granted(scene, scene.caller(), refund(300, terms=Terms(history=before, sensitivity=1)))
    assert grant.history_mark == HistoryMark(3, {"amount": 1000, "other": 1}, 1)
    assert denied(scene, scene.caller(), refund(301, terms=Terms(history=before))).decision.policies == ("most",)
    assert granted(scene, scene.caller(), RulingRequest(READ, "acme", terms=Terms(sensitivity=2))).history_mark == HistoryMark(taint=2)
    assert granted(scene, scene.caller(), RulingRequest(READ, "acme", terms=Terms(history=before))).history_mark == HistoryMark()


def test_what_goes_on_is_ruled_on_as_it_was_and_leaves_the_sums_as_they_are(tmp_path: Path) -> None:  # attack DLG-13
    scene = Scene(tmp_path, TOTAL)
    seen = History(version=4, totals={"amount": 1000, "other": 5}, calls={REFUND.permission: 1})
    asked = refund(300, terms=Terms(history=seen, continues_decision_id="d1"))
    assert denied(scene, scene.caller(), asked).decision.counted_with_decision_id == ""
    going = scene.authority.as_continuation(asked, seen)
    assert going.terms.history == History(version=4, totals={"amount": 700, "other": 5})
    grant = granted(scene, scene.caller(), going)
    assert grant.history_mark == HistoryMark(4, {"amount": 1000, "other": 5})
    assert grant.decision.counted_with_decision_id == "d1"
    assert (grant.decision.act.verb, grant.decision.act.permission) == ("go-on-with", REFUND.permission)
    plain = granted(scene, scene.caller(), refund(300, terms=Terms(history=History())))
    step = scene.authority.prior_act_of(asked)
    assert step == PriorAct("d1", REFUND.permission, plain.decision.arguments, plain.decision.policy_version)
    assert (
        scene.authority.prior_act_of(RulingRequest(REFUND, "acme")).arguments == "" != scene.authority.prior_act_of(refund(301)).arguments
    )
    other = scene.authority.as_continuation(RulingRequest(READ, "acme", {"amount": 300}, terms=Terms(history=seen)), seen)
    assert other.terms.history == seen  # of that act nothing is added up


@pytest.mark.parametrize("amount", [-1, True])
def test_what_can_not_be_added_up_is_refused(tmp_path: Path, amount: Any) -> None:
    scene = Scene(tmp_path, f'@id("sum") @total("amount") permit(principal, {TOOL}, resource == Tool::"crm.refund");')
    ruling = denied(scene, scene.caller(), refund(amount, terms=Terms(history=History())))
    assert ruling.decision.reason_id == "not-countable" and set(ruling.decision.policies) == {"role:sales", "sum"}
    assert granted(scene, scene.caller(), refund(amount))  # nothing is counted
    assert granted(scene, scene.caller(), refund(0, terms=Terms(history=History())))
    refused = denied(scene, scene.caller(who=RICK), RulingRequest(MAIL, "acme", {"amount": amount}, terms=Terms(history=History())))
    assert refused.decision.reason_id == "user-lacks-permission"


# what may be told to whom


@pytest.mark.parametrize(("act", "hidden"), [(READ, False), (MAIL, True)])
def test_what_is_sensitive_reaches_no_agent_that_is_not_cleared_for_it(scene: Scene, act: Act, hidden: bool) -> None:
    scene.clearances["acme", "front"] = 1
    caller = scene.caller(Hop("front"), Hop("desk"))
    ruling = denied(scene, caller, RulingRequest(act, "acme", terms=Terms(sensitivity=2)))
    assert (ruling.decision.reason_id, ruling.is_hidden) == ("sensitivity-exceeds-clearance", hidden)
    assert ruling.decision.missing == ("clearance 2 (agent front)",)
    assert granted(scene, caller, RulingRequest(READ, "acme", terms=Terms(sensitivity=1)))


def test_what_an_errand_has_seen_is_told_to_nobody_who_is_not_cleared_for_it(scene: Scene) -> None:
    caller = scene.caller(Hop("front"))
    ruling = denied(scene, caller, RulingRequest(READ, "acme", terms=Terms(clearance=1, history=History(taint=2))))
    assert ruling.decision.reason_id == "taint-exceeds-clearance" and ruling.decision.missing == ("clearance 2 (crm)",)
    assert granted(scene, caller, RulingRequest(READ, "acme", terms=Terms(clearance=1, history=History(taint=1))))
