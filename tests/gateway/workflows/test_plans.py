"""A planner's answer is data: what is no plan, or wants more than it was offered, is refused before any of its steps."""

from typing import Any

import pytest

from gateway.workflows.coordination.plan import Condition, digest_of_plan, steps_of
from gateway.workflows.coordination.reading import BadPlan, plan_data, read_plan
from gateway.workflows.dsl.coordination import PlanArguments, plan_argument_problems

SAID: dict[str, Any] = {"agent": "planner", "goal": "g", "among": {"agents": ["sales"], "tools": ["stock.check"]}}
OFFERED = {"agents": [{"name": "sales"}], "tools": [{"name": "stock.check"}]}
ASK: dict[str, Any] = {"call": "gateway.agent", "with": {"agent": "sales", "input": "hi"}}


def problem_of(plan: Any, **said: Any) -> str:
    """Why a plan is refused, or the empty text."""
    try:
        read_plan(plan_data(plan), PlanArguments.model_validate({**SAID, **said}), OFFERED)
    except BadPlan as bad:
        return str(bad)
    return ""


def call(tool: str, arguments: Any) -> dict[str, Any]:
    return {"call": "gateway.tool", "with": {"tool": tool, "arguments": arguments}}


def test_a_plan_of_what_was_offered_is_read() -> None:
    plan = {"do": [{"look": call("stock.check", {"sku": {"from": "input", "path": "/sku"}})}, {"ask": ASK}]}
    assert problem_of(plan) == ""
    read = read_plan(plan, PlanArguments.model_validate(SAID), OFFERED)
    assert [placed.path for placed in steps_of(read)] == ["/do/0/look", "/do/1/ask"]


@pytest.mark.parametrize("text", ['{"do": [{"a": {"set": 1}}]}', '```json\n{"do": [{"a": {"set": 1}}]}\n```'])
def test_a_plan_may_be_the_text_of_an_answer(text: str) -> None:
    assert plan_data(text) == {"do": [{"a": {"set": 1}}]}


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ("I would ask sales first.", "is no JSON"),
        ([1], "is no JSON object"),
        ("[" * 5000, "is no JSON"),
        ({"do": []}, "is empty"),
        ({"do": [{"a": {"run": {"shell": "ls"}}}]}, "is no step"),
        ({"do": [{"a": {"call": "gateway.plan", "with": SAID}}]}, "is no step"),
        ({"do": [{"a": {"call": "http", "with": {"endpoint": "http://x"}}}]}, "is no step"),
        ({"do": [{"a": {**ASK, "if": "true"}}]}, "is not known here"),
        ({"do": [{"a": {"call": "gateway.agent", "with": {"agent": "finance"}}}]}, "the agent `finance` was not offered"),
        ({"do": [{"a": call("stock.pay", {})}]}, "the tool `stock.pay` was not offered"),
        ({"do": [{"a": {"set": 1}}, {"a": {"set": 2}}]}, "2 steps of the name `a`"),
        ({"do": [{"input": {"set": 1}}]}, "no step is named `input`"),
        ({"do": [{"a": {"set": "${ $ENV }"}}]}, "has an expression"),
        ({"do": [{"a": call("stock.check", {"x": ["${ .secret }"]})}]}, "has an expression"),
        ({"do": [{"a": {"set": {"from": "later"}}}, {"later": {"set": 1}}]}, "no step that has ended"),
        ({"do": [{"a": {"set": {"from": "a"}}}]}, "no step that has ended"),
        ({"do": [{"a": {"set": {"from": "input", "path": "x"}}}]}, "no JSON pointer"),
        ({"do": [{"a": {"fork": {"branches": [{"b": {"set": 1}}, {"c": {"set": {"from": "b"}}}]}}}]}, "no step that has ended"),
        ({"do": [{"a": {"switch": [{"do": [{"b": {"set": 1}}]}]}}, {"c": {"set": {"from": "b"}}}]}, "no step that has ended"),
        ({"do": [{f"s{number}": {"set": 1}} for number in range(21)]}, "21 steps, more than 20"),
        ({"do": [{"a": {"do": [{"b": {"do": [{"c": {"do": [{"d": {"set": 1}}]}}]}}]}}]}, "4 lists deep, more than 3"),
        ({"do": [{"a": {"set": "x" * 70_000}}]}, "bytes, more than 65536"),
        ({"do": [{"a": {"set": float("inf")}}]}, "JSON can't have"),
    ],
)
def test_what_is_no_plan_within_the_offers_is_refused(plan: Any, reason: str) -> None:  # attack WFL-02
    assert reason in problem_of(plan)


def test_a_deep_answer_is_refused_without_recursion() -> None:  # attack WFL-02
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    assert "nested deeper than" in problem_of({"do": [{"a": {"set": deep}}]})


def test_later_steps_see_what_surely_ran() -> None:
    branches = [{"left": {"set": 1}}, {"right": {"do": [{"inner": {"set": 2}}]}}]
    assert problem_of({"do": [{"both": {"fork": {"branches": branches}}}, {"c": {"set": [{"from": "left"}, {"from": "inner"}]}}]}) == ""


@pytest.mark.parametrize(
    ("compared", "value", "holds"),
    [
        ({"equals": 1}, 1, True),
        ({"equals": 1}, True, False),
        ({"atLeast": 2}, 2, True),
        ({"atMost": 2}, 3, False),
        ({"atMost": 2}, "1", False),
    ],
)
def test_conditions_compare_by_kind(compared: Any, value: Any, holds: bool) -> None:
    assert Condition.model_validate({"value": {"from": "a"}, **compared}).holds(value) is holds


def test_the_digest_is_that_of_the_data_and_not_of_its_spelling() -> None:
    assert digest_of_plan({"a": 1, "b": 2}) == digest_of_plan({"b": 2, "a": 1})
    assert digest_of_plan({"a": 1}) != digest_of_plan({"a": 2})


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"agent": "${ .agent }"}, "/agent"),
        ({"among": {"agents": ["${ .agent }"]}}, "/among/agents/0"),
        ({"among": {"tools": ["stock"]}}, "/among/tools/0"),
        ({"among": {}}, ""),
        ({"approve": "${ .no }"}, "/approve"),
        ({"replan": 11}, "/replan"),
        ({"limits": {"cost": 1}}, ""),
        ({"limits": {"steps": 0}}, "/limits/steps"),
        ({"expires": "soon"}, "/expires"),
        ({"unknown": 1}, "/unknown"),
    ],
)
def test_a_document_says_plainly_what_a_planner_may(change: dict[str, Any], place: str) -> None:
    assert [at for at, _ in plan_argument_problems({**SAID, **change})] == [place]
