"""Administration is never delegated: no role, ceiling or policy lets an agent administer."""

import pytest

from policies.authority import DELEGABLE_ACTIONS, DELEGATED_ADMINISTRATION, RulingRequest, is_delegated_administration
from policies.callers import HypotheticalCaller
from policies.cedar.role_rules import ACTIONS
from policies.delegation.chain import Hop
from policies.delegation.rulings import Act, ChainLink
from policies.what_if.acts import act_of_permission
from tests.fakes.authority import ADA, ALICE, Scene, denied, granted

ADMINISTRATION = frozenset({"registerAgent", "decideApproval", "readAudit", "writePolicy"})
ACTS = {act.action: act for act in map(act_of_permission, ("registry:write", "approval:decide", "audit:read", "policy:write"))}
DELEGATED = [act_of_permission(text) for text in ("agent:x", "tool:crm.read", "resource:crm", "prompt:crm.ask", "workflow:w")]
PERMIT = "permit(principal, action, resource);"
READS_INPUT = '@id("input") forbid(principal, action, resource) when { context has input && context.input has never };'


def test_every_action_is_either_delegable_or_administration() -> None:
    assert ACTIONS == DELEGABLE_ACTIONS | ADMINISTRATION and not DELEGABLE_ACTIONS & ADMINISTRATION
    assert ACTS.keys() == ADMINISTRATION


# attack DLG-16
@pytest.mark.parametrize("policies", ["", PERMIT, READS_INPUT])
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_no_right_lets_an_agent_administer(scene: Scene, policies: str, act: Act) -> None:
    (scene.folder / "ours.cedar").write_text(policies)
    scene.engine.reload()
    operator, agent = scene.caller(who=ADA), scene.caller(Hop("front"), Hop("desk"), who=ADA)
    request = RulingRequest(act, "acme")
    assert scene.authority.could_allow(operator, act) and granted(scene, operator, request).decision.policies
    ruling = denied(scene, agent, request)
    assert (ruling.decision.reason_id, ruling.is_hidden, ruling.decision.missing) == (DELEGATED_ADMINISTRATION, False, ())
    assert ruling.decision.chain == (ChainLink("front", ("*",)), ChainLink("desk", ("*",)))
    assert not scene.authority.could_allow(agent, act)
    assert scene.authority.rule_hypothetically(HypotheticalCaller(ADA, path=(Hop("front"),)), request).reason_id == DELEGATED_ADMINISTRATION


# attack DLG-16
def test_an_action_that_nobody_has_classified_is_administration(scene: Scene) -> None:
    act = Act("somethingNew", "Key", "new", "new:thing", "new")
    assert is_delegated_administration(scene.caller(Hop("desk")).delegation, act)
    assert not is_delegated_administration(scene.caller().delegation, act)


@pytest.mark.parametrize("act", DELEGATED, ids=lambda act: act.action)
def test_an_agent_does_what_is_delegable(scene: Scene, act: Act) -> None:
    assert granted(scene, scene.caller(Hop("desk"), who=ADA), RulingRequest(act, "acme")).delegation.path == (Hop("desk"),)


# attack DLG-16
def test_what_is_a_persons_own_is_denied_to_their_agent_and_never_ruled_on_for_them(scene: Scene) -> None:
    request = RulingRequest(ACTS["registerAgent"], "acme")
    denial = scene.authority.deny_delegated_administration(scene.caller(Hop("desk"), who=ALICE), request)
    assert denial is not None
    decision = denial.decision
    assert (decision.allowed, decision.reason_id, decision.principal) == (False, DELEGATED_ADMINISTRATION, ALICE.owner_key)
    assert (decision.act, decision.policy_version, decision.txn) == (request.act, scene.engine.version, "x0")
    assert scene.authority.deny_delegated_administration(scene.caller(who=ALICE), request) is None
    assert scene.authority.deny_delegated_administration(scene.caller(Hop("desk"), who=ALICE), RulingRequest(DELEGATED[0], "acme")) is None
    assert scene.engine.decided == 0
