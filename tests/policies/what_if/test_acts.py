"""Acts: one permission stands for each, and whatever stands for several, or for none, is no act."""

import pytest

from policies.cedar.role_rules import ACTION_BY_PREFIX
from policies.delegation.permissions import BadPermission
from policies.delegation.rulings import Act
from policies.what_if.acts import act_of_permission, act_of_resource

ACTS = {
    "tool:crm.read": Act("callTool", "Tool", "crm.read", "tool:crm.read", "crm"),
    "tool:crm.read.all": Act("callTool", "Tool", "crm.read.all", "tool:crm.read.all", "crm"),
    "prompt:crm.greet": Act("getPrompt", "Prompt", "crm.greet", "prompt:crm.greet", "crm"),
    "agent:sales": Act("invokeAgent", "Agent", "sales", "agent:sales", "sales"),
    "agent:sales/quote": Act("invokeAgent", "Agent", "sales/quote", "agent:sales/quote", "sales"),
    "resource:crm": Act("readResource", "Server", "crm", "resource:crm", "crm"),
    "workflow:order": Act("runWorkflow", "Workflow", "order", "workflow:order", "order"),
    "registry:write": Act("registerAgent", "Key", "write", "registry:write", "write"),
    "approval:decide": Act("decideApproval", "Task", "decide", "approval:decide", "decide"),
    "audit:read": Act("readAudit", "Task", "read", "audit:read", "read"),
    "policy:write": Act("writePolicy", "Task", "write", "policy:write", "write"),
    "state:read:x": Act("readState", "Key", "x", "state:read:x", "x"),
    "memory:read:person": Act("readMemory", "Memory", "person", "memory:read:person", "person"),
    "memory:write:workflow:x": Act("writeMemory", "Memory", "workflow:x", "memory:write:workflow:x", "workflow:x"),
    "state:write:x/y": Act("writeState", "Key", "x/y", "state:write:x/y", "x/y"),
}


@pytest.mark.parametrize("permission", ACTS)
def test_a_permission_stands_for_one_act(permission: str) -> None:
    assert act_of_permission(permission) == ACTS[permission]


def test_every_family_of_permissions_stands_for_acts() -> None:
    assert {act.action for act in ACTS.values()} == set(ACTION_BY_PREFIX.values())


@pytest.mark.parametrize(
    "permission",
    ["*", "tool:*", "tool:crm.*", "tool:crm", "tool:.read", "tool:crm.", "prompt:crm", "prompt:crm.", "agent:*", "agent:sales/*", "state:x",
     "state:read:*", "planet:mars", "tools:a.b", "", "tool:crm.read now", "agent:"],
)  # fmt: skip
def test_what_stands_for_several_acts_or_for_none_is_refused(permission: str) -> None:
    with pytest.raises(BadPermission):
        act_of_permission(permission)


@pytest.mark.parametrize("permission", ACTS)
def test_an_act_is_found_by_its_action_and_resource(permission: str) -> None:
    act = ACTS[permission]
    assert act_of_resource(act.action, act.kind, act.resource) == act


def test_a_tools_own_action_means_calling_it() -> None:
    assert act_of_resource("crm.read", "Tool", "crm.read") == ACTS["tool:crm.read"]


@pytest.mark.parametrize(
    ("action", "kind", "name"),
    [
        ("crm.read", "Tool", "crm.write"),
        ("crm.read", "Prompt", "crm.read"),
        ("callTool", "Prompt", "crm.read"),
        ("callTool", "Tool", "crm"),
        ("callTool", "Tool", "*"),
        ("invokeAgent", "Tool", "crm.read"),
        ("sales", "Agent", "sales"),
        ("callTools", "Tool", "crm.read"),
        ("", "", ""),
    ],
)
def test_an_act_that_is_none_is_refused(action: str, kind: str, name: str) -> None:
    with pytest.raises(BadPermission):
        act_of_resource(action, kind, name)
