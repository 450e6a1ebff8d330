"""What the authority rules, on every act: why, for how long it is remembered, and what is told of it."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as with_

from policies.approval import Approval, Exact
from policies.authority import Request, errand_of
from policies.callers import Caller, Supposed
from policies.delegation import DEPTH_MAX, CannotNarrow, Hop
from policies.grant import Act, Decision, Denial, Grant, Link, Question, calling, invoking
from policies.history import History, Mark
from policies.kills import Kill
from policies.permissions import Permissions
from policies.principal import Principal
from policies.terms import Terms
from tests.fakes.authority import ALICE, Scene

READ, REFUND, MAIL = calling("crm", "read"), calling("crm", "refund"), calling("mail", "send")
NORA = Principal("acme", ALICE.issuer, "nora", ("nobody",))
RICK = Principal("acme", ALICE.issuer, "rick", ("reader",))
ADA = Principal("acme", ALICE.issuer, "ada", ("admin",))
TOOL = 'action == Action::"callTool"'
LARGE = f'@id("large") forbid(principal, {TOOL}, resource == Tool::"crm.refund") when {{ context.input.amount > 500 }};'
ASKING = LARGE.replace("forbid", '@ask("sure?") @approvals("2") @expires("30m") forbid')
ONCE = f'@id("once") forbid(principal, {TOOL}, resource == Tool::"crm.refund") when {{ context.history.repeats > 0 }};'
TOTAL = (
    f'@id("most") @total("amount") forbid(principal, {TOOL}, resource == Tool::"crm.refund")'
    " when { context.history.totals.amount + context.input.amount > 1000 };"
)


def crm(*permissions: str) -> Permissions:
    return Permissions.of(permissions)


def refund(amount: int, **more: Any) -> Request:
    return Request(REFUND, "acme", {"amount": amount}, **more)


def denied(scene: Scene, caller: Caller, request: Request) -> Denial:
    ruling = scene.authority.rule(caller, request)
    assert isinstance(ruling, Denial) and not ruling.decision.allowed
    return ruling


def granted(scene: Scene, caller: Caller, request: Request) -> Grant:
    ruling = scene.authority.rule(caller, request)
    assert isinstance(ruling, Grant) and ruling.decision.allowed
    return ruling


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_grant_tells_all_that_its_ruling_rested_on(scene: Scene) -> None:
    caller = scene.caller(Hop("front"), Hop("desk", crm("tool:crm.read")), scope=crm("tool:*", "agent:x"))
    grant = granted(scene, caller, Request(READ, "acme", {"b": 1, "a": 2}, trace_id="T"))
    assert grant.decision == Decision(
        id="d_1",
        at=1_800_000_000_000_000,
        allowed=True,
        reason_id="allowed",
        principal="acme|https://idp.test|alice",
        roles=("sales",),
        chain=(Link("front", ("agent:x", "tool:crm.*")), Link("desk", ("tool:crm.read",))),
        act=READ,
        policies=("role:sales",),
        missing=(),
        grant_id="g0",
        task_id="t0",
        txn="x0",
        trace_id="T",
        arguments=hashlib.sha256(b'{"a":2,"b":1}').hexdigest(),
        policy_version=scene.engine.version,
        scope=("agent:x", "tool:*"),
    )
    assert grant.delegation is caller.delegation and grant.mark is None


def test_the_task_and_errand_that_are_to_come_are_told_and_no_scope_where_nothing_was_narrowed(scene: Scene) -> None:
    caller = scene.caller(Hop("front"))
    told = granted(scene, caller, Request(READ, "acme", task_id="t9", txn="x9")).decision
    assert (told.task_id, told.txn, told.scope, told.arguments, told.trace_id) == ("t9", "x9", (), "", "")
    assert scene.authority.rule(caller, Request(READ, "acme")).decision.id == "d_2"
    mine = scene.authority.rule(scene.caller(), Request(READ, "acme")).decision
    assert (mine.task_id, mine.txn, mine.grant_id, mine.chain) == ("", "", "", ())


def test_no_arguments_are_something_else_than_empty_ones(scene: Scene) -> None:
    told = [granted(scene, scene.caller(), Request(READ, "acme", given)).decision.arguments for given in (None, {})]
    assert told == ["", hashlib.sha256(b"{}").hexdigest()]


@pytest.mark.parametrize(("who", "act", "hidden"), [(ALICE, MAIL, True), (RICK, REFUND, False), (NORA, READ, True)])
def test_what_a_person_lacks_is_named_and_hidden_where_they_know_nothing_near(scene: Scene, who: Principal, act: Act, hidden: bool) -> None:
    ruling = denied(scene, scene.caller(Hop("front"), who=who), Request(act, "acme"))  # attack DLG-01
    assert (ruling.decision.reason_id, ruling.decision.missing) == ("user-lacks-permission", (f"{act.permission} (user)",))
    assert (ruling.hidden, ruling.scope, ruling.note, ruling.decision.policies) == (hidden, "", "", ())


@pytest.mark.parametrize(("act", "hidden"), [(REFUND, False), (MAIL, True)])
def test_what_a_token_was_not_given_for_is_named_as_scope(scene: Scene, act: Act, hidden: bool) -> None:
    ruling = denied(scene, scene.caller(scope=crm("tool:crm.read")), Request(act, "acme"))
    assert (ruling.decision.reason_id, ruling.decision.missing) == ("scope-missing", (f"{act.permission} (token)",))
    assert (ruling.scope, ruling.hidden) == (act.permission, hidden)


def test_the_first_agent_that_may_not_is_named(scene: Scene) -> None:  # attack DLG-02
    path = (Hop("front"), Hop("desk", crm("tool:crm.read")), Hop("back", crm("agent:*")))
    ruling = denied(scene, scene.caller(*path), Request(REFUND, "acme"))
    assert (ruling.decision.reason_id, ruling.decision.missing) == ("ceiling-exceeded", ("tool:crm.refund (agent desk)",))
    assert not ruling.hidden and denied(scene, scene.caller(*path), Request(MAIL, "acme")).hidden
    assert granted(scene, scene.caller(path[0]), Request(REFUND, "acme"))


@pytest.mark.parametrize(("act", "hidden"), [(REFUND, False), (MAIL, True)])
def test_a_server_offers_no_more_than_its_own_ceiling(scene: Scene, act: Act, hidden: bool) -> None:
    ruling = denied(scene, scene.caller(), Request(act, "acme", ceiling=crm("tool:crm.read")))
    assert (ruling.decision.reason_id, ruling.hidden) == ("ceiling-exceeded", hidden)
    assert ruling.decision.missing == (f"{act.permission} (server {act.parent})",)


@pytest.mark.parametrize(("life", "allowed"), [(0.001, True), (0.0, False), (-1.0, False)])
def test_authority_ends_at_its_time_though_it_was_ruled_on_before(scene: Scene, life: float, allowed: bool) -> None:
    assert granted(scene, scene.caller(), Request(READ, "acme"))
    caller = scene.caller(life=life)
    assert scene.authority.may(caller, READ) is allowed
    ruling = scene.authority.rule(caller, Request(READ, "acme"))
    assert ruling.decision.reason_id == ("allowed" if allowed else "token-expired")


@pytest.mark.parametrize(
    ("kind", "name", "act", "hidden"),
    [
        ("agent", "front", READ, False),
        ("user", ALICE.owner, READ, False),
        ("user", ALICE.owner, MAIL, True),
        ("server", "crm", READ, False),
        ("server", "mail", MAIL, True),
    ],
)
def test_what_is_stopped_is_refused_though_it_was_ruled_on_before(scene: Scene, kind: Any, name: str, act: Act, hidden: bool) -> None:
    caller = scene.caller(Hop("front"))
    scene.authority.rule(caller, Request(act, "acme"))
    scene.kills.refuse(Kill("acme", "k1", kind, name, "", "", 1))
    ruling = denied(scene, caller, Request(act, "acme"))
    assert (ruling.decision.reason_id, ruling.decision.missing, ruling.hidden) == ("killed", (), hidden)
    assert not scene.authority.may(caller, act)


def test_what_is_stopped_stops_nothing_else(scene: Scene) -> None:
    scene.kills.refuse(Kill("acme", "k1", "agent", "other", "", "", 1))
    scene.kills.refuse(Kill("evil", "k2", "agent", "front", "", "", 1))
    assert granted(scene, scene.caller(Hop("front")), Request(READ, "acme"))


def test_what_a_policy_forbids_is_told_with_the_policy(tmp_path: Path) -> None:
    scene = Scene(tmp_path, LARGE + '@id("never") forbid(principal, action, resource == Tool::"mail.send");')
    ruling = denied(scene, scene.caller(), refund(501))
    assert (ruling.decision.reason_id, ruling.decision.policies) == ("policy-forbids", ("large",))
    assert not ruling.hidden and not ruling.decision.missing
    assert granted(scene, scene.caller(), refund(500)).decision.policies == ("role:sales",)
    assert denied(scene, scene.caller(who=ADA), Request(MAIL, "acme")).decision.policies == ("never",)
    assert denied(scene, scene.caller(), Request(MAIL, "acme")).hidden


def test_a_policy_that_can_not_be_evaluated_refuses_and_is_asked_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path, LARGE)
    for times in (1, 2):
        ruling = denied(scene, scene.caller(), Request(REFUND, "acme", {"amount": "many"}))
        assert (ruling.decision.reason_id, ruling.hidden, ruling.decision.missing) == ("policy-error", False, ())
        assert ruling.decision.policies == ("role:sales",)
        assert scene.engine.decided == times
    assert denied(scene, scene.caller(), Request(REFUND, "acme")).decision.reason_id == "policy-error"  # there are no arguments
    assert denied(scene, scene.caller(who=NORA), Request(REFUND, "acme", {"amount": "many"})).hidden


# what is remembered


def test_a_ruling_is_remembered_for_a_minute_and_every_ruling_has_its_own_decision(scene: Scene) -> None:
    caller = scene.caller()
    first = granted(scene, caller, Request(READ, "acme"))
    scene.clock.now += 59.5
    again = granted(scene, caller, Request(READ, "acme", {"id": 1}))  # which no policy looks at
    assert scene.engine.decided == 1
    assert (first.decision.id, again.decision.id) == ("d_1", "d_2") and again.decision.at > first.decision.at
    assert again.decision.policies == first.decision.policies
    scene.clock.now += 0.5
    denied(scene, caller, Request(READ, "acme"))
    granted(scene, scene.caller(), Request(READ, "acme"))
    assert scene.engine.decided == 2


@pytest.mark.parametrize(
    ("caller", "act", "reason"),
    [
        ({"who": NORA}, READ, "user-lacks-permission"),
        ({"scope": Permissions.of(["agent:*"])}, READ, "scope-missing"),
        ({"path": (Hop("front", Permissions.of(["agent:*"])),)}, READ, "ceiling-exceeded"),
        ({}, MAIL, "user-lacks-permission"),
    ],
)
def test_a_refusal_is_remembered_too_and_is_nobody_elses(scene: Scene, caller: dict[str, Any], act: Act, reason: str) -> None:
    assert granted(scene, scene.caller(), Request(READ, "acme"))
    told = [denied(scene, scene.caller(*caller.get("path", ()), **_rest(caller)), Request(act, "acme")) for _ in range(2)]
    assert [one.decision.reason_id for one in told] == [reason] * 2
    assert scene.engine.decided == (2 if reason == "user-lacks-permission" else 1)
    assert granted(scene, scene.caller(), Request(READ, "acme")) and scene.engine.decided < 3


def _rest(caller: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in caller.items() if name != "path"}


def test_a_ruling_on_one_kind_of_thing_is_none_on_another_of_the_same_name(tmp_path: Path) -> None:
    scene = Scene(tmp_path, '@id("ours") permit(principal, action == Action::"registerAgent", resource is Agent);')
    agent = Act("registerAgent", "Agent", "crm", "registry:write", "write")
    assert granted(scene, scene.caller(), Request(agent, "acme"))
    assert denied(scene, scene.caller(), Request(with_(agent, kind="Server"), "acme")).decision.reason_id == "user-lacks-permission"
    assert denied(scene, scene.caller(), Request(with_(agent, resource="sales", kind="Server"), "acme"))
    assert denied(scene, scene.caller(), Request(with_(agent, action="writePolicy"), "acme"))


def test_a_ruling_in_one_tenant_is_none_in_another(scene: Scene) -> None:  # attack TEN-04
    assert granted(scene, scene.caller(), Request(READ, "acme"))
    assert denied(scene, scene.caller(), Request(READ, "evil")).decision.policies == ("inv-tenant",)


def test_rulings_on_what_a_policy_reads_are_of_those_arguments_alone(tmp_path: Path) -> None:
    scene = Scene(tmp_path, LARGE)
    for amount, allowed in ((500, True), (501, False), (500, True), (501, False)):
        assert scene.authority.rule(scene.caller(), refund(amount)).decision.allowed is allowed
    assert scene.engine.decided == 2


def test_nothing_is_remembered_once_it_is_forgotten(scene: Scene) -> None:
    granted(scene, scene.caller(), Request(READ, "acme"))
    before = scene.authority.generation
    scene.authority.forget()
    granted(scene, scene.caller(), Request(READ, "acme"))
    assert (scene.engine.decided, scene.authority.generation) == (2, before + 1)


def test_nothing_is_believed_while_this_process_does_not_know_what_others_changed(scene: Scene) -> None:
    granted(scene, scene.caller(), Request(READ, "acme"))
    assert scene.authority.fresh is True
    scene.fresh = False
    assert scene.authority.fresh is False
    granted(scene, scene.caller(), Request(READ, "acme"))
    assert scene.engine.decided == 2
    scene.fresh = True
    granted(scene, scene.caller(), Request(READ, "acme"))
    assert scene.engine.decided == 2


# what goes to an agent


def test_an_agent_is_handed_what_is_left_in_a_task_of_its_own(scene: Scene) -> None:
    caller = scene.caller(Hop("front"))
    grant = granted(scene, caller, Request(invoking("sales"), "acme", callee=Hop("sales", crm("tool:crm.read")), task_id="t1", txn="x1"))
    child = grant.delegation
    assert (child.grant_id, child.task_id, child.txn, child.actor) == ("g_1", "t1", "x1", "sales")
    assert child.held() == crm("tool:crm.read") and child.not_after == caller.delegation.not_after
    assert (grant.decision.grant_id, grant.decision.task_id, grant.decision.txn) == ("g0", "t1", "x1")


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize(("path", "reason"), [(("sales",), "loop"), (("a", "b", "c", "d"), "too-deep")])
def test_a_loop_and_too_deep_a_chain_are_refused_and_nobody_is_asked(
    tmp_path: Path, path: tuple[str, ...], reason: str, asks: bool
) -> None:
    scene = Scene(tmp_path, '@id("sure") @ask("sure?") forbid(principal, action == Action::"invokeAgent", resource);' if asks else "")
    request = Request(invoking("sales"), "acme", callee=Hop("sales"), task_id="t1", txn="x1")  # attack DLG-05
    ruling = denied(scene, scene.caller(*map(Hop, path)), request)
    assert (ruling.decision.reason_id, ruling.decision.policies) == (reason, ())
    assert len(path) in (1, DEPTH_MAX)


def test_a_refused_message_makes_no_grant(scene: Scene) -> None:
    request = Request(invoking("sales"), "acme", callee=Hop("sales"), task_id="t1", txn="x1")
    assert denied(scene, scene.caller(who=NORA), request).decision.reason_id == "user-lacks-permission"
    assert "g" not in scene.ids


def test_ones_own_task_is_stopped_without_asking_any_policy(scene: Scene) -> None:
    request = Request(invoking("sales"), "acme", {"message": "stop"}, task_id="t1", txn="x1")
    caller = scene.caller(Hop("front"), who=NORA, scope=crm("tool:crm.read"))
    grant = scene.authority.stopping(caller, request, Hop("sales", crm("tool:*")))
    told = grant.decision
    assert (told.allowed, told.reason_id, told.arguments, told.policies) == (True, "own-task", "", ())
    assert (told.id, told.policy_version, told.task_id) == ("d_1", scene.engine.version, "t1")
    assert (grant.delegation.grant_id, grant.delegation.actor) == ("g_1", "sales")
    assert grant.delegation.held() == crm("tool:crm.read") and scene.engine.decided == 0
    with pytest.raises(CannotNarrow, match="loop"):
        scene.authority.stopping(caller, request, Hop("front"))


# what people are asked

EXACT = Exact("{}", "hash", "definition")


def approval(scene: Scene, caller: Caller, request: Request, **changed: Any) -> Approval:
    now = int(scene.clock.now * 1_000_000)
    said = Approval("ap1", errand_of(caller, request), request.act.permission, "definition", "hash", ("large",), "approved", now + 1)
    return with_(said, approvers=("acme|https://idp.test|bob",), **changed)


def with_approval(request: Request, said: Approval | None, named: str = "") -> Request:
    return with_(request, terms=Terms(exact=EXACT, approval=said, named=named))


@pytest.fixture
def asking(tmp_path: Path) -> Scene:
    return Scene(tmp_path, ASKING)


def test_what_asks_becomes_a_question(asking: Scene) -> None:
    ruling = asking.authority.rule(asking.caller(), refund(501))
    assert isinstance(ruling, Question)
    assert (ruling.prompt, ruling.needed, ruling.seconds) == ("sure?", 2, 1800)
    told = ruling.decision
    assert (told.allowed, told.reason_id, told.policies, told.approval) == (False, "approval-needed", ("large",), "")
    again = asking.authority.rule(asking.caller(), refund(501))
    assert isinstance(again, Question) and asking.engine.decided == 1
    assert granted(asking, asking.caller(), refund(500))


def test_what_can_not_be_shown_exactly_is_not_asked(tmp_path: Path) -> None:
    scene = Scene(tmp_path, '@id("sure") @ask("sure?") forbid(principal, action, resource);')
    write = Act("writePolicy", "Key", "grants", "policy:write", "grants")
    ruling = denied(scene, scene.caller(who=ADA), Request(write, "acme"))
    assert (ruling.decision.reason_id, ruling.decision.policies) == ("policy-forbids", ("sure",))
    assert isinstance(scene.authority.rule(scene.caller(who=ADA), Request(READ, "acme")), Question)


def test_what_nobody_may_is_not_asked_of_people(asking: Scene) -> None:
    assert denied(asking, asking.caller(who=NORA), refund(501)).decision.reason_id == "user-lacks-permission"


def test_what_people_allowed_is_granted_and_the_approval_is_told(asking: Scene) -> None:
    for caller, request in ((asking.caller(), refund(501)), (asking.caller(Hop("front")), refund(501))):
        grant = granted(asking, caller, with_approval(request, approval(asking, caller, request)))
        assert (grant.decision.approval, grant.decision.approvers) == ("ap1", ("acme|https://idp.test|bob",))
        assert (grant.decision.reason_id, grant.decision.policies) == ("allowed", ("large",))


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
    assert (ruling.decision.approval, ruling.decision.approvers, ruling.hidden) == ("", (), False)


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
    found = errand_of(scene.caller(Hop("front"), Hop("desk")), refund(1, task_id=task, txn=txn))
    assert (found.txn, found.task_id) == errand
    assert (found.tenant, found.owner, found.chain) == ("acme", ALICE.owner, ("front", "desk"))


def test_an_act_that_needs_no_approval_uses_none_up(asking: Scene) -> None:  # attack DLG-13
    caller, request = asking.caller(), refund(5)
    mallorys = of_mallory(approval(asking, caller, request))
    assert granted(asking, caller, with_approval(request, mallorys)).decision.approval == ""


def of_mallory(said: Approval) -> Approval:
    return with_(said, errand=with_(said.errand, owner="acme|https://idp.test|mallory"))


# what an errand did before


def test_only_policies_that_look_at_it_recall_what_was_done(tmp_path: Path) -> None:
    scene = Scene(tmp_path, ONCE)
    assert scene.authority.recalls(REFUND) is True and scene.authority.recalls(READ) is False


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
    assert grant.mark == Mark(3, {"amount": 1000, "other": 1}, 1)
    assert denied(scene, scene.caller(), refund(301, terms=Terms(history=before))).decision.policies == ("most",)
    assert granted(scene, scene.caller(), Request(READ, "acme", terms=Terms(sensitivity=2))).mark == Mark(taint=2)
    assert granted(scene, scene.caller(), Request(READ, "acme", terms=Terms(history=before))).mark == Mark()


@pytest.mark.parametrize("amount", [-1, True])
def test_what_can_not_be_added_up_is_refused(tmp_path: Path, amount: Any) -> None:
    scene = Scene(tmp_path, f'@id("sum") @total("amount") permit(principal, {TOOL}, resource == Tool::"crm.refund");')
    ruling = denied(scene, scene.caller(), refund(amount, terms=Terms(history=History())))
    assert ruling.decision.reason_id == "not-countable" and set(ruling.decision.policies) == {"role:sales", "sum"}
    assert granted(scene, scene.caller(), refund(amount))  # nothing is counted
    assert granted(scene, scene.caller(), refund(0, terms=Terms(history=History())))
    refused = denied(scene, scene.caller(who=RICK), Request(MAIL, "acme", {"amount": amount}, terms=Terms(history=History())))
    assert refused.decision.reason_id == "user-lacks-permission"


# what may be told to whom


@pytest.mark.parametrize(("act", "hidden"), [(READ, False), (MAIL, True)])
def test_what_is_sensitive_reaches_no_agent_that_is_not_cleared_for_it(scene: Scene, act: Act, hidden: bool) -> None:
    scene.clearances["acme", "front"] = 1
    caller = scene.caller(Hop("front"), Hop("desk"))
    ruling = denied(scene, caller, Request(act, "acme", terms=Terms(sensitivity=2)))
    assert (ruling.decision.reason_id, ruling.hidden) == ("sensitivity-exceeds-clearance", hidden)
    assert ruling.decision.missing == ("clearance 2 (agent front)",)
    assert granted(scene, caller, Request(READ, "acme", terms=Terms(sensitivity=1)))


def test_what_an_errand_has_seen_is_told_to_nobody_who_is_not_cleared_for_it(scene: Scene) -> None:
    caller = scene.caller(Hop("front"))
    ruling = denied(scene, caller, Request(READ, "acme", terms=Terms(clearance=1, history=History(taint=2))))
    assert ruling.decision.reason_id == "taint-exceeds-clearance" and ruling.decision.missing == ("clearance 2 (crm)",)
    assert granted(scene, caller, Request(READ, "acme", terms=Terms(clearance=1, history=History(taint=1))))


# what is supposed, and what is listed


def test_what_would_be_ruled_is_told_and_nobody_may_do_it(scene: Scene) -> None:
    told = scene.authority.suppose(Supposed(ALICE), Request(READ, "acme"))
    assert isinstance(told, Decision) and told.allowed and told.principal == ALICE.owner and told.scope == ()
    narrow = scene.authority.suppose(Supposed(ALICE, crm("tool:mail.send")), Request(READ, "acme"))
    assert (narrow.reason_id, narrow.scope) == ("scope-missing", ("tool:mail.send",))
    chained = scene.authority.suppose(Supposed(ALICE, path=(Hop("front", crm("agent:*")),)), Request(READ, "acme"))
    assert chained.missing == ("tool:crm.read (agent front)",)
    assert (chained.grant_id, chained.task_id, chained.txn) == ("", "", "")


@pytest.mark.parametrize("policies", ["", LARGE, ONCE], ids=["nothing", "arguments", "history"])
def test_lists_show_what_could_be_allowed(tmp_path: Path, policies: str) -> None:
    scene = Scene(tmp_path, policies)
    may = scene.authority.may
    assert may(scene.caller(), REFUND) is True
    assert may(scene.caller(Hop("front", crm("tool:*"))), REFUND) is True
    assert may(scene.caller(scope=crm("tool:crm.refund")), REFUND) is True
    refused = [
        scene.caller(who=RICK),
        scene.caller(scope=crm("tool:crm.read")),
        scene.caller(Hop("front", crm("tool:crm.read")), Hop("desk")),
        scene.caller(who=replace(ALICE, tenant="evil")),
        scene.caller(life=0.0),
    ]
    assert [may(caller, REFUND) for caller in refused[:3]] == [False] * 3
    assert may(refused[4], REFUND) is False
    assert may(scene.caller(life=0.001), REFUND) is True
    scene.kills.refuse(Kill("acme", "k1", "server", "crm", "", "", 1))
    assert may(scene.caller(), REFUND) is False
    assert not scene.ids  # it leaves no trace


def test_what_a_policy_always_forbids_is_not_listed_and_what_asks_is(tmp_path: Path) -> None:
    wipe = calling("crm", "wipe")
    large = LARGE.replace("refund", "wipe").replace("large", "wipes")  # so that its arguments are read too
    scene = Scene(tmp_path, f'{ASKING} {large} @id("never") forbid(principal, action, resource == Tool::"crm.wipe");')
    assert scene.authority.may(scene.caller(), REFUND) and scene.authority.may(scene.caller(), READ)
    assert scene.authority.may(scene.caller(), wipe) is False
    plain = Scene(tmp_path, '@id("sure") @ask("sure?") forbid(principal, action, resource == Tool::"crm.read");')
    assert plain.authority.may(plain.caller(), READ)


@pytest.mark.parametrize(("who", "act", "seen"), [(ALICE, REFUND, True), (RICK, REFUND, True), (RICK, MAIL, False), (NORA, READ, False)])
def test_only_what_somebody_may_know_of_is_seen(scene: Scene, who: Principal, act: Act, seen: bool) -> None:
    assert scene.authority.sees(scene.caller(who=who), act) is seen


def test_a_request_can_not_be_changed_once_it_was_made() -> None:
    with pytest.raises(AttributeError):
        Request(READ, "acme").tenant = "evil"  # type: ignore[misc]  # that is the claim
