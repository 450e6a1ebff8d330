"""What the authority rules, on every act: why, for how long it is remembered, and what is told of it."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as with_

from policies.authority import RulingRequest
from policies.callers import HypotheticalCaller
from policies.delegation.chain import DEPTH_MAX, CannotNarrow, Hop, Principal
from policies.delegation.history import VERB_FOLLOW_TASK, VERB_STOP_TASK, History, HistoryMark
from policies.delegation.kills import Kill
from policies.delegation.permissions import Permissions
from policies.delegation.rulings import Act, ChainLink, Decision, Denial, act_of_calling_tool, act_of_invoking_agent, act_of_stopping_task
from policies.delegation.terms import Terms
from tests.fakes.authority import ADA, ALICE, ASKING, LARGE, MAIL, NORA, ONCE, READ, REFUND, RICK, Scene, crm, denied, granted, refund


def test_a_grant_tells_all_that_its_ruling_rested_on(scene: Scene) -> None:
    caller = scene.caller(Hop("front"), Hop("desk", crm("tool:crm.read")), scope=crm("tool:*", "agent:x"))
    grant = granted(scene, caller, RulingRequest(READ, "acme", {"b": 1, "a": 2}, trace_id="T"))
    assert grant.decision == Decision(
        id="d_1",
        at=1_800_000_000_000_000,
        allowed=True,
        reason_id="allowed",
        principal="acme|https://idp.test|alice",
        roles=("sales",),
        chain=(ChainLink("front", ("agent:x", "tool:crm.*")), ChainLink("desk", ("tool:crm.read",))),
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
    assert grant.delegation is caller.delegation and grant.history_mark is None


def test_a_grant_names_its_coming_task_and_transaction_and_no_unnarrowed_scope(scene: Scene) -> None:
    caller = scene.caller(Hop("front"))
    told = granted(scene, caller, RulingRequest(READ, "acme", task_id="t9", txn="x9")).decision
    assert (told.task_id, told.txn, told.scope, told.arguments, told.trace_id) == ("t9", "x9", (), "", "")
    assert scene.authority.rule(caller, RulingRequest(READ, "acme")).decision.id == "d_2"
    mine = scene.authority.rule(scene.caller(), RulingRequest(READ, "acme")).decision
    assert (mine.task_id, mine.txn, mine.grant_id, mine.chain) == ("", "", "", ())


def test_no_arguments_are_something_else_than_empty_ones(scene: Scene) -> None:
    told = [granted(scene, scene.caller(), RulingRequest(READ, "acme", given)).decision.arguments for given in (None, {})]
    assert told == ["", hashlib.sha256(b"{}").hexdigest()]


@pytest.mark.parametrize(("who", "act", "hidden"), [(ALICE, MAIL, True), (RICK, REFUND, False), (NORA, READ, True)])
def test_what_a_person_lacks_is_named_and_hidden_where_they_know_nothing_near(scene: Scene, who: Principal, act: Act, hidden: bool) -> None:
    ruling = denied(scene, scene.caller(Hop("front"), who=who), RulingRequest(act, "acme"))  # attack DLG-01
    assert (ruling.decision.reason_id, ruling.decision.missing) == ("user-lacks-permission", (f"{act.permission} (user)",))
    assert (ruling.is_hidden, ruling.missing_permission, ruling.note, ruling.decision.policies) == (hidden, "", "", ())


@pytest.mark.parametrize(("act", "hidden"), [(REFUND, False), (MAIL, True)])
def test_what_a_token_was_not_given_for_is_named_as_scope(scene: Scene, act: Act, hidden: bool) -> None:
    ruling = denied(scene, scene.caller(scope=crm("tool:crm.read")), RulingRequest(act, "acme"))
    assert (ruling.decision.reason_id, ruling.decision.missing) == ("scope-missing", (f"{act.permission} (token)",))
    assert (ruling.missing_permission, ruling.is_hidden) == (act.permission, hidden)


def test_the_first_agent_that_may_not_is_named(scene: Scene) -> None:  # attack DLG-02
    path = (Hop("front"), Hop("desk", crm("tool:crm.read")), Hop("back", crm("agent:*")))
    ruling = denied(scene, scene.caller(*path), RulingRequest(REFUND, "acme"))
    assert (ruling.decision.reason_id, ruling.decision.missing) == ("ceiling-exceeded", ("tool:crm.refund (agent desk)",))
    assert not ruling.is_hidden and denied(scene, scene.caller(*path), RulingRequest(MAIL, "acme")).is_hidden
    assert granted(scene, scene.caller(path[0]), RulingRequest(REFUND, "acme"))


@pytest.mark.parametrize(("act", "hidden"), [(REFUND, False), (MAIL, True)])
def test_a_server_offers_no_more_than_its_own_ceiling(scene: Scene, act: Act, hidden: bool) -> None:
    ruling = denied(scene, scene.caller(), RulingRequest(act, "acme", ceiling=crm("tool:crm.read")))
    assert (ruling.decision.reason_id, ruling.is_hidden) == ("ceiling-exceeded", hidden)
    assert ruling.decision.missing == (f"{act.permission} (server {act.parent})",)


@pytest.mark.parametrize(("life", "allowed"), [(0.001, True), (0.0, False), (-1.0, False)])
def test_authority_ends_at_its_time_though_it_was_ruled_on_before(scene: Scene, life: float, allowed: bool) -> None:
    assert granted(scene, scene.caller(), RulingRequest(READ, "acme"))
    caller = scene.caller(life=life)
    assert scene.authority.could_allow(caller, READ) is allowed
    ruling = scene.authority.rule(caller, RulingRequest(READ, "acme"))
    assert ruling.decision.reason_id == ("allowed" if allowed else "token-expired")
    assert allowed or ruling == Denial(ruling.decision)  # nothing is hidden, and nothing said beside it


@pytest.mark.parametrize(
    ("kind", "name", "act", "hidden"),
    [
        ("agent", "front", READ, False),
        ("user", ALICE.owner_key, READ, False),
        ("user", ALICE.owner_key, MAIL, True),
        ("server", "crm", READ, False),
        ("server", "mail", MAIL, True),
    ],
)
def test_what_is_stopped_is_refused_though_it_was_ruled_on_before(scene: Scene, kind: Any, name: str, act: Act, hidden: bool) -> None:
    caller = scene.caller(Hop("front"))
    scene.authority.rule(caller, RulingRequest(act, "acme"))
    scene.kills.enforce_before_persisted(Kill("acme", "k1", kind, name, "", "", 1))
    ruling = denied(scene, caller, RulingRequest(act, "acme"))
    assert (ruling.decision.reason_id, ruling.decision.missing, ruling.is_hidden) == ("killed", (), hidden)
    assert not scene.authority.could_allow(caller, act)


def test_what_is_stopped_stops_nothing_else(scene: Scene) -> None:
    scene.kills.enforce_before_persisted(Kill("acme", "k1", "agent", "other", "", "", 1))
    scene.kills.enforce_before_persisted(Kill("evil", "k2", "agent", "front", "", "", 1))
    assert granted(scene, scene.caller(Hop("front")), RulingRequest(READ, "acme"))


def test_what_a_policy_forbids_is_told_with_the_policy(tmp_path: Path) -> None:
    scene = Scene(tmp_path, LARGE + '@id("never") forbid(principal, action, resource == Tool::"mail.send");')
    ruling = denied(scene, scene.caller(), refund(501))
    assert (ruling.decision.reason_id, ruling.decision.policies) == ("policy-forbids", ("large",))
    assert not ruling.is_hidden and not ruling.decision.missing
    assert granted(scene, scene.caller(), refund(500)).decision.policies == ("role:sales",)
    assert denied(scene, scene.caller(who=ADA), RulingRequest(MAIL, "acme")).decision.policies == ("never",)
    assert denied(scene, scene.caller(), RulingRequest(MAIL, "acme")).is_hidden


def test_a_policy_that_can_not_be_evaluated_refuses_and_is_asked_again(tmp_path: Path) -> None:
    scene = Scene(tmp_path, LARGE)
    for times in (1, 2):
        ruling = denied(scene, scene.caller(), RulingRequest(REFUND, "acme", {"amount": "many"}))
        assert (ruling.decision.reason_id, ruling.is_hidden, ruling.decision.missing) == ("policy-error", False, ())
        assert ruling.decision.policies == ("large",)
        assert scene.engine.decided == times
    assert denied(scene, scene.caller(), RulingRequest(REFUND, "acme")).decision.reason_id == "policy-error"  # there are no arguments
    assert denied(scene, scene.caller(who=NORA), RulingRequest(REFUND, "acme", {"amount": "many"})).is_hidden


# what is remembered


def test_a_ruling_is_remembered_for_a_minute_and_every_ruling_has_its_own_decision(scene: Scene) -> None:
    caller = scene.caller()
    first = granted(scene, caller, RulingRequest(READ, "acme"))
    scene.clock.now += 59.5
    again = granted(scene, caller, RulingRequest(READ, "acme", {"id": 1}))  # which no policy looks at
    assert scene.engine.decided == 1
    assert (first.decision.id, again.decision.id) == ("d_1", "d_2") and again.decision.at > first.decision.at
    assert again.decision.policies == first.decision.policies
    scene.clock.now += 0.5
    denied(scene, caller, RulingRequest(READ, "acme"))
    granted(scene, scene.caller(), RulingRequest(READ, "acme"))
    assert scene.engine.decided == 2


@pytest.mark.parametrize(
    ("caller", "act", "reason"),
    [
        ({"who": NORA}, READ, "user-lacks-permission"),
        ({"scope": Permissions.parse(["agent:*"])}, READ, "scope-missing"),
        ({"path": (Hop("front", Permissions.parse(["agent:*"])),)}, READ, "ceiling-exceeded"),
        ({}, MAIL, "user-lacks-permission"),
    ],
)
def test_a_refusal_is_remembered_too_and_is_nobody_elses(scene: Scene, caller: dict[str, Any], act: Act, reason: str) -> None:
    assert granted(scene, scene.caller(), RulingRequest(READ, "acme"))
    told = [denied(scene, scene.caller(*caller.get("path", ()), **_rest(caller)), RulingRequest(act, "acme")) for _ in range(2)]
    assert [one.decision.reason_id for one in told] == [reason] * 2
    assert scene.engine.decided == (2 if reason == "user-lacks-permission" else 1)
    assert granted(scene, scene.caller(), RulingRequest(READ, "acme")) and scene.engine.decided < 3


def _rest(caller: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in caller.items() if name != "path"}


def test_a_ruling_on_one_kind_of_thing_is_none_on_another_of_the_same_name(tmp_path: Path) -> None:
    scene = Scene(tmp_path, '@id("ours") permit(principal, action == Action::"registerAgent", resource is Agent);')
    agent = Act("registerAgent", "Agent", "crm", "registry:write", "write")
    assert granted(scene, scene.caller(), RulingRequest(agent, "acme"))
    assert denied(scene, scene.caller(), RulingRequest(with_(agent, kind="Server"), "acme")).decision.reason_id == "user-lacks-permission"
    assert denied(scene, scene.caller(), RulingRequest(with_(agent, resource="sales", kind="Server"), "acme"))
    assert denied(scene, scene.caller(), RulingRequest(with_(agent, action="writePolicy"), "acme"))


def test_a_ruling_in_one_tenant_is_none_in_another(scene: Scene) -> None:  # attack TEN-04
    assert granted(scene, scene.caller(), RulingRequest(READ, "acme"))
    assert denied(scene, scene.caller(), RulingRequest(READ, "evil")).decision.policies == ("inv-tenant",)


def test_rulings_on_what_a_policy_reads_are_of_those_arguments_alone(tmp_path: Path) -> None:
    scene = Scene(tmp_path, LARGE)
    for amount, allowed in ((500, True), (501, False), (500, True), (501, False)):
        assert scene.authority.rule(scene.caller(), refund(amount)).decision.allowed is allowed
    assert scene.engine.decided == 2


def test_nothing_is_remembered_once_it_is_forgotten(scene: Scene) -> None:
    granted(scene, scene.caller(), RulingRequest(READ, "acme"))
    before = scene.authority.generation
    scene.authority.invalidate()
    granted(scene, scene.caller(), RulingRequest(READ, "acme"))
    assert (scene.engine.decided, scene.authority.generation) == (2, before + 1)


def test_nothing_is_believed_while_this_process_does_not_know_what_others_changed(scene: Scene) -> None:
    granted(scene, scene.caller(), RulingRequest(READ, "acme"))
    assert scene.authority.is_fresh is True
    scene.fresh = False
    assert scene.authority.is_fresh is False
    granted(scene, scene.caller(), RulingRequest(READ, "acme"))
    assert scene.engine.decided == 2
    scene.fresh = True
    granted(scene, scene.caller(), RulingRequest(READ, "acme"))
    assert scene.engine.decided == 2


# what goes to an agent


def test_an_agent_is_handed_what_is_left_in_a_task_of_its_own(scene: Scene) -> None:
    caller = scene.caller(Hop("front"))
    grant = granted(
        scene,
        caller,
        RulingRequest(act_of_invoking_agent("sales"), "acme", callee=Hop("sales", crm("tool:crm.read")), task_id="t1", txn="x1"),
    )
    child = grant.delegation
    assert (child.grant_id, child.task_id, child.txn, child.actor) == ("g_1", "t1", "x1", "sales")
    assert child.effective_permissions() == crm("tool:crm.read") and child.not_after == caller.delegation.not_after
    assert (grant.decision.grant_id, grant.decision.task_id, grant.decision.txn) == ("g0", "t1", "x1")


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize(("path", "reason"), [(("sales",), "loop"), (("a", "b", "c", "d"), "too-deep")])
def test_a_loop_and_too_deep_a_chain_are_refused_and_nobody_is_asked(
    tmp_path: Path, path: tuple[str, ...], reason: str, asks: bool
) -> None:
    scene = Scene(tmp_path, '@id("sure") @ask("sure?") forbid(principal, action == Action::"invokeAgent", resource);' if asks else "")
    request = RulingRequest(act_of_invoking_agent("sales"), "acme", callee=Hop("sales"), task_id="t1", txn="x1")  # attack DLG-05
    ruling = denied(scene, scene.caller(*map(Hop, path)), request)
    assert (ruling.decision.reason_id, ruling.decision.policies) == (reason, ())
    assert len(path) in (1, DEPTH_MAX)


def test_a_refused_message_makes_no_grant(scene: Scene) -> None:
    request = RulingRequest(act_of_invoking_agent("sales"), "acme", callee=Hop("sales"), task_id="t1", txn="x1")
    assert denied(scene, scene.caller(who=NORA), request).decision.reason_id == "user-lacks-permission"
    assert "g" not in scene.ids


def test_ones_own_task_is_stopped_without_asking_any_policy(scene: Scene) -> None:
    request = RulingRequest(act_of_invoking_agent("sales"), "acme", {"message": "stop"}, task_id="t1", txn="x1")
    caller = scene.caller(Hop("front"), who=NORA, scope=crm("tool:crm.read"))
    grant = scene.authority.grant_stop(caller, request, Hop("sales", crm("tool:*")))
    told = grant.decision
    assert (told.allowed, told.reason_id, told.arguments, told.policies) == (True, "own-task", "", ())
    assert (told.id, told.policy_version, told.task_id) == ("d_1", scene.engine.version, "t1")
    assert (grant.delegation.grant_id, grant.delegation.actor) == ("g_1", "sales")
    assert grant.delegation.effective_permissions() == crm("tool:crm.read") and scene.engine.decided == 0
    with pytest.raises(CannotNarrow, match="loop"):
        scene.authority.grant_stop(caller, request, Hop("front"))


def test_a_servers_task_is_stopped_with_no_more_than_the_caller_has(scene: Scene) -> None:
    caller = scene.caller(Hop("front"), who=NORA)
    grant = scene.authority.grant_stop(caller, RulingRequest(act_of_stopping_task("crm", "refund"), "acme", {"amount": 9}))
    assert grant.delegation is caller.delegation and grant.history_mark is None and scene.engine.decided == 0
    assert (grant.decision.reason_id, grant.decision.act) == ("own-task", replaced(REFUND, VERB_STOP_TASK))


def test_who_may_stop_what_a_tool_began_is_asked_of_token_chain_and_kills_alone(scene: Scene) -> None:
    assert scene.authority.may_stop(scene.caller(who=NORA), REFUND) and scene.engine.decided == 0
    assert not scene.authority.may_stop(scene.caller(scope=crm("tool:crm.read")), REFUND)
    assert not scene.authority.may_stop(scene.caller(Hop("front", crm("tool:crm.read"))), REFUND)
    scene.kills.enforce_before_persisted(Kill("acme", "k1", "server", "crm", "", "", 0))
    assert not scene.authority.may_stop(scene.caller(), REFUND)


def test_to_follow_what_a_call_began_is_ruled_on_like_the_call_and_adds_nothing_up(tmp_path: Path) -> None:
    scene = Scene(tmp_path, LARGE)
    follows, terms = replaced(REFUND, VERB_FOLLOW_TASK), Terms(history=History(4, totals={"amount": 5}), continues_decision_id="d_0")
    grant = granted(scene, scene.caller(), RulingRequest(follows, "acme", {"amount": 9}, terms=terms))
    assert (grant.history_mark, grant.decision.act) == (HistoryMark(), follows)
    refused = denied(scene, scene.caller(), RulingRequest(follows, "acme", {"amount": 501}, terms=terms))
    assert refused.decision.reason_id == "policy-forbids"


def replaced(act: Act, verb: str) -> Act:
    """The same, but for the verb."""
    return with_(act, verb=verb)


# what is supposed, and what is listed


def test_what_would_be_ruled_is_told_and_nobody_may_do_it(scene: Scene) -> None:
    told = scene.authority.rule_hypothetically(HypotheticalCaller(ALICE), RulingRequest(READ, "acme"))
    assert isinstance(told, Decision) and told.allowed and told.principal == ALICE.owner_key and told.scope == ()
    narrow = scene.authority.rule_hypothetically(HypotheticalCaller(ALICE, crm("tool:mail.send")), RulingRequest(READ, "acme"))
    assert (narrow.reason_id, narrow.scope) == ("scope-missing", ("tool:mail.send",))
    chained = scene.authority.rule_hypothetically(
        HypotheticalCaller(ALICE, path=(Hop("front", crm("agent:*")),)), RulingRequest(READ, "acme")
    )
    assert chained.missing == ("tool:crm.read (agent front)",)
    assert (chained.grant_id, chained.task_id, chained.txn) == ("", "", "")


@pytest.mark.parametrize("policies", ["", LARGE, ONCE], ids=["nothing", "arguments", "history"])
def test_lists_show_what_could_be_allowed(tmp_path: Path, policies: str) -> None:
    scene = Scene(tmp_path, policies)
    may = scene.authority.could_allow
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
    scene.kills.enforce_before_persisted(Kill("acme", "k1", "server", "crm", "", "", 1))
    assert may(scene.caller(), REFUND) is False
    assert not scene.ids  # it leaves no trace


def test_what_a_policy_always_forbids_is_not_listed_and_what_asks_is(tmp_path: Path) -> None:
    wipe = act_of_calling_tool("crm", "wipe")
    large = LARGE.replace("refund", "wipe").replace("large", "wipes")  # so that its arguments are read too
    scene = Scene(tmp_path, f'{ASKING} {large} @id("never") forbid(principal, action, resource == Tool::"crm.wipe");')
    assert scene.authority.could_allow(scene.caller(), REFUND) and scene.authority.could_allow(scene.caller(), READ)
    assert scene.authority.could_allow(scene.caller(), wipe) is False
    plain = Scene(tmp_path, '@id("sure") @ask("sure?") forbid(principal, action, resource == Tool::"crm.read");')
    assert plain.authority.could_allow(plain.caller(), READ)


@pytest.mark.parametrize(("who", "act", "seen"), [(ALICE, REFUND, True), (RICK, REFUND, True), (RICK, MAIL, False), (NORA, READ, False)])
def test_only_what_somebody_may_know_of_is_seen(scene: Scene, who: Principal, act: Act, seen: bool) -> None:
    assert scene.authority.can_see(scene.caller(who=who), act) is seen
