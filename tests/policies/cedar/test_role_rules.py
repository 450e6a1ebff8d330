"""The role rule: what a pattern of a role permits by Cedar is what it covers as text, or less."""

from typing import Any

import pytest

from policies.cedar.engine import CedarQuestion, PolicyEngine
from policies.cedar.role_rules import ACTION_BY_PREFIX, ACTIONS, role_policies
from policies.delegation.chain import Principal
from policies.delegation.permissions import BadPermission, Permissions
from policies.delegation.rulings import Act, act_of_calling_tool, act_of_getting_prompt, act_of_invoking_agent, act_of_reading_resource
from policies.what_if.acts import act_of_permission

ACTS = [
    act_of_invoking_agent("sales"),
    act_of_invoking_agent("sales", "quote"),
    act_of_invoking_agent("sales2"),
    act_of_invoking_agent("sales-eu", "quote"),
    act_of_invoking_agent("sal"),
    act_of_calling_tool("crm", "find"),
    act_of_calling_tool("crm", "admin.drop"),
    act_of_calling_tool("crm", "find2"),
    act_of_calling_tool("crm2", "find"),
    act_of_calling_tool("crm.eu", "find"),
    act_of_calling_tool("crm", "a/b"),
    act_of_getting_prompt("crm", "find"),
    act_of_getting_prompt("crm", "greet"),
    act_of_getting_prompt("crm2", "greet"),
    act_of_reading_resource("crm"),
    act_of_reading_resource("crm2"),
    *(act_of_permission(f"state:{verb}:{key}") for verb in ("read", "write") for key in ("team", "team/a", "team/a/b", "team2", "other")),
    *(
        act_of_permission(each)
        for each in (
            "workflow:order",
            "workflow:order/eu",
            "workflow:orders",
            "registry:read",
            "registry:write",
            "approval:decide",
            "audit:read",
            "audit:read/all",
            "policy:write",
            "policy:test",
        )
    ),
]
PATTERNS = [
    "*",
    "agent:*",
    "agent:sales",
    "agent:sales/quote",
    "agent:sales/*",
    "agent:sa",
    "tool:*",
    "tool:crm.*",
    "tool:crm.find",
    "tool:crm.admin.*",
    "tool:crm.admin.drop",
    "tool:crm.eu.*",
    "tool:crm.a/*",
    "tool:crm.a/b",
    "tool:crm",
    "prompt:*",
    "prompt:crm.*",
    "prompt:crm.greet",
    "resource:*",
    "resource:crm",
    "state:*",
    "state:read:*",
    "state:write:*",
    "state:read:team",
    "state:write:team/*",
    "state:read:team/a",
    "state:write:tea",
    "workflow:*",
    "workflow:order",
    "workflow:order/*",
    "registry:*",
    "registry:read",
    "approval:*",
    "approval:decide",
    "audit:*",
    "audit:read",
    "policy:*",
    "policy:write",
]
LESS = {("tool:crm.*", "tool:crm.eu.find")}  # a server whose name begins like another's with a dot behind it is another server


@pytest.fixture(scope="module")
def engine() -> PolicyEngine:
    return PolicyEngine({f"may {pattern}": [pattern] for pattern in PATTERNS} | {"none": []})


def allowed(engine: PolicyEngine, act: Act, *roles: str) -> bool:
    return engine.decide(CedarQuestion(Principal("acme", "idp", "alice", roles), act, "acme")).allowed


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_permits_what_it_covers(engine: PolicyEngine, pattern: str) -> None:
    held = Permissions.parse([pattern])
    covered = {act.permission for act in ACTS if held.covers(act.permission) and (pattern, act.permission) not in LESS}
    assert {act.permission for act in ACTS if allowed(engine, act, f"may {pattern}")} == covered


def test_a_role_without_permissions_permits_nothing(engine: PolicyEngine) -> None:
    assert not any(allowed(engine, act, *roles) for act in ACTS for roles in ((), ("none",), ("may",), ("role:may *",)))


def test_each_action_has_a_family_of_permissions_and_each_family_an_action() -> None:
    assert dict(ACTION_BY_PREFIX) == {
        "agent:": "invokeAgent",
        "tool:": "callTool",
        "resource:": "readResource",
        "prompt:": "getPrompt",
        "state:read:": "readState",
        "state:write:": "writeState",
        "memory:read:": "readMemory",
        "memory:write:": "writeMemory",
        "workflow:": "runWorkflow",
        "registry:": "registerAgent",
        "approval:": "decideApproval",
        "audit:": "readAudit",
        "policy:": "writePolicy",
    }
    assert set(ACTION_BY_PREFIX.values()) == ACTIONS and len(ACTIONS) == len(ACTION_BY_PREFIX)


def policies(**roles: list[str]) -> list[dict[str, Any]]:
    return list(role_policies(roles))


def test_each_permission_is_a_permit_named_by_its_role_in_a_stable_order() -> None:
    found = policies(b=["tool:b.x", "agent:a"], a=["*"], c=[])
    assert [(policy["effect"], policy["annotations"]["id"]) for policy in found] == [("permit", f"role:{name}") for name in "abb"]
    assert [policy["principal"]["entity"] for policy in found] == [{"type": "Role", "id": name} for name in "abb"]
    assert found == policies(a=["*"], c=[], b=["agent:a", "tool:b.x", "agent:a"])


def test_what_a_scope_can_say_needs_no_condition() -> None:
    """A condition on the resource would have to be looked at for each question."""
    patterns = ["*", "agent:*", "agent:sales", "tool:*", "tool:crm.*", "tool:crm.find", "prompt:crm.*", "prompt:crm.greet", "state:*"]
    assert [policy["conditions"] for policy in policies(a=patterns)] == [[]] * len(patterns)


@pytest.mark.parametrize("pattern", ["tools:x.y", "state:x", "state:team", "admin:*", "nonsense", "", "agent:"])
def test_what_no_family_has_is_refused(pattern: str) -> None:
    with pytest.raises(BadPermission):
        policies(a=[pattern])
