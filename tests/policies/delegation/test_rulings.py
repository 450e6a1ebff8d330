"""Rulings and what they tell: what they say, and as careful as they can be where nothing was said."""

from policies.delegation.chain import Delegation, Principal
from policies.delegation.permissions import ALL_PERMISSIONS
from policies.delegation.rulings import (
    SERVER_KINDS,
    Act,
    Decision,
    Denial,
    Grant,
    Question,
    Ruling,
    act_of_calling_tool,
    act_of_getting_prompt,
    act_of_invoking_agent,
    act_of_reading_resource,
)

DECISION = Decision("d_1", 5, True, "allowed", "acme|https://idp.test|alice", (), (), act_of_calling_tool("crm", "read"))
GRANT = Grant(DECISION, Delegation(Principal("acme", "https://idp.test", "alice"), ALL_PERMISSIONS, 1.0))


def test_an_act_names_its_resource_the_parent_and_the_permission_for_both() -> None:
    assert act_of_invoking_agent("sales") == Act("invokeAgent", "Agent", "sales", "agent:sales", "sales")
    assert act_of_invoking_agent("sales", "quote") == Act("invokeAgent", "Agent", "sales/quote", "agent:sales/quote", "sales")
    assert act_of_calling_tool("crm", "read") == Act("callTool", "Tool", "crm.read", "tool:crm.read", "crm")
    assert act_of_getting_prompt("crm", "greet") == Act("getPrompt", "Prompt", "crm.greet", "prompt:crm.greet", "crm")
    assert act_of_reading_resource("crm") == Act("readResource", "Server", "crm", "resource:crm", "crm")
    assert {
        act.kind: act.kind in SERVER_KINDS
        for act in (
            act_of_invoking_agent("a"),
            act_of_calling_tool("a", "b"),
            act_of_getting_prompt("a", "b"),
            act_of_reading_resource("a"),
        )
    } == {
        "Agent": False,
        "Tool": True,
        "Prompt": True,
        "Server": False,
    }


def test_a_decision_says_nothing_that_it_was_not_told() -> None:
    told = (DECISION.grant_id, DECISION.task_id, DECISION.txn, DECISION.trace_id, DECISION.arguments, DECISION.policy_version)
    assert told == ("",) * 6 and DECISION.act.verb == ""
    assert (DECISION.policies, DECISION.missing, DECISION.scope, DECISION.approval, DECISION.approvers) == ((), (), (), "", ())
    assert GRANT.history_mark is None


def test_a_refusal_is_visible_and_a_question_needs_one_approval_by_default() -> None:
    assert Denial(DECISION) == Denial(DECISION, False, "", "")
    assert Question(DECISION) == Question(DECISION, "", 1, 0)
    assert all(isinstance(ruling, Ruling) for ruling in (GRANT, Denial(DECISION), Question(DECISION)))
