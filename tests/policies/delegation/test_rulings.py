"""Rulings and what they tell: what they say, and as careful as they can be where nothing was said."""

from policies.delegation.chain import Delegation
from policies.delegation.permissions import ALL
from policies.delegation.principal import Principal
from policies.delegation.rulings import SERVED, Act, Decision, Denial, Grant, Question, Ruling, calling, getting, invoking, reading

DECISION = Decision("d_1", 5, True, "allowed", "acme|https://idp.test|alice", (), (), calling("crm", "read"))
GRANT = Grant(DECISION, Delegation(Principal("acme", "https://idp.test", "alice"), ALL, 1.0))


def test_acts_name_their_resource_its_parent_and_the_permission_that_stands_for_both() -> None:
    assert invoking("sales") == Act("invokeAgent", "Agent", "sales", "agent:sales", "sales")
    assert invoking("sales", "quote") == Act("invokeAgent", "Agent", "sales/quote", "agent:sales/quote", "sales")
    assert calling("crm", "read") == Act("callTool", "Tool", "crm.read", "tool:crm.read", "crm")
    assert getting("crm", "greet") == Act("getPrompt", "Prompt", "crm.greet", "prompt:crm.greet", "crm")
    assert reading("crm") == Act("readResource", "Server", "crm", "resource:crm", "crm")
    assert {act.kind: act.kind in SERVED for act in (invoking("a"), calling("a", "b"), getting("a", "b"), reading("a"))} == {
        "Agent": False,
        "Tool": True,
        "Prompt": True,
        "Server": False,
    }


def test_a_decision_says_nothing_that_it_was_not_told() -> None:
    told = (DECISION.grant_id, DECISION.task_id, DECISION.txn, DECISION.trace_id, DECISION.arguments, DECISION.policy_version)
    assert told == ("",) * 6 and DECISION.act.verb == ""
    assert (DECISION.policies, DECISION.missing, DECISION.scope, DECISION.approval, DECISION.approvers) == ((), (), (), "", ())
    assert GRANT.mark is None


def test_a_refusal_is_shown_and_a_question_wants_one_person_unless_something_else_is_said() -> None:
    assert Denial(DECISION) == Denial(DECISION, False, "", "")
    assert Question(DECISION) == Question(DECISION, "", 1, 0)
    assert all(isinstance(ruling, Ruling) for ruling in (GRANT, Denial(DECISION), Question(DECISION)))
