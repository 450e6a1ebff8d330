"""What operators write of the group of all tools, as it is asked of each tool."""

import pytest

from policies.cedar.actions import group_actions
from tests.fakes.cedar_policies import when

ALL = 'Action::"callTool"'
ANY_TOOL = f"action in {ALL}"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (f"action == {ALL}", ANY_TOOL),
        (f"{ALL} == action", ANY_TOOL),
        (f"action != {ALL}", f"!({ANY_TOOL})"),
        (f"{ALL} != action", f"!({ANY_TOOL})"),
        (f"context.depth > 1 && (resource is Tool || action == {ALL})", f"context.depth > 1 && (resource is Tool || {ANY_TOOL})"),
        (f"if action == {ALL} then action != {ALL} else true", f"if {ANY_TOOL} then !({ANY_TOOL}) else true"),
        (f'[action == {ALL}, action == Action::"readAudit"].contains(true)', f'[{ANY_TOOL}, action == Action::"readAudit"].contains(true)'),
        (f'[{ALL}, Action::"getPrompt"].contains(action)', f'action in [{ALL}, Action::"getPrompt"]'),
        (f"[{ALL}].contains(action)", f"action in [{ALL}]"),
    ],
)
def test_the_group_means_whatever_is_in_it(written: str, meant: str) -> None:
    assert group_actions(when(written))["conditions"] == when(meant)["conditions"]


@pytest.mark.parametrize(
    "condition",
    [
        ANY_TOOL,
        f'action in [{ALL}, Action::"getPrompt"]',
        f"!(action in {ALL})",
        'action == Action::"inventory.reserve"',
        'action != Action::"invokeAgent"',
        '[Action::"getPrompt", Action::"invokeAgent"].contains(action)',
        '[Action::"getPrompt"].contains(Action::"getPrompt")',
        'principal == User::"callTool"',
        'principal in Role::"x" && resource in Server::"callTool"',
        '"callTool" == context.task',
        'context.chain.contains("callTool")',
        "action == action",
        "context.input.action == 1",
    ],
)
def test_everything_else_stays_as_it_is_written(condition: str) -> None:
    policy = when(condition)
    assert group_actions(policy) == policy


@pytest.mark.parametrize(
    "condition",
    [
        f"[action].containsAny([{ALL}])",
        f"[action].contains({ALL})",
        f"{{a: action}}.a == {ALL}",
        f"{ALL} == {ALL}",
        f"{ALL} in action",
        f'(if context.depth > 1 then {ALL} else Action::"getPrompt") == action',
        f'[{ALL}].contains(Action::"getPrompt")',
        f"[{ALL}].containsAll([action])",
        f"context.depth == 1 && ({ANY_TOOL} || principal.subject == {ALL})",
        f"principal in {ALL}",
    ],
)
def test_a_comparison_that_would_hold_for_no_tool_is_refused(condition: str) -> None:
    with pytest.raises(ValueError, match="action in Action"):
        group_actions(when(condition))


@pytest.mark.parametrize(
    ("scope", "meant"),
    [
        (f"principal, action == {ALL}, resource", f"principal, action in {ALL}, resource"),
        *((same, same) for same in (
            "principal, action, resource",
            f"principal, action in {ALL}, resource",
            f'principal, action in [{ALL}, Action::"getPrompt"], resource',
            'principal, action == Action::"getPrompt", resource',
            'principal, action == Action::"inventory.reserve", resource',
        )),
    ],
)  # fmt: skip
def test_a_scope_of_the_group_is_of_all_in_it(scope: str, meant: str) -> None:
    assert group_actions(when("context.depth == 1", scope)) == when("context.depth == 1", meant)


def test_the_policy_that_was_given_stays_as_it_was() -> None:
    policy = when(f"action == {ALL}", f"principal, action == {ALL}, resource")
    group_actions(policy)
    assert policy == when(f"action == {ALL}", f"principal, action == {ALL}, resource")
