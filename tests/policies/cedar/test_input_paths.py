"""What a policy reads of the arguments, and that numbers are compared as the policy means them however a caller writes them."""

from typing import Any

import pytest

from policies.cedar.input_paths import WHOLE_INPUT, check_decimals, decimal_paths, input_paths, non_decimal_paths, with_decimals
from policies.cedar.values import NotExpressible, decimal_value
from tests.fakes.cedar_policies import when

ONE = 'decimal("1.0")'


@pytest.mark.parametrize(
    ("condition", "paths"),
    [
        ("context.input.a == 1", {("a",)}),
        ('context["input"]["a b"] == 1', {("a b",)}),
        ("context.input.a.b > 1 && context.input.c", {("a", "b"), ("c",)}),
        ("context.input has a", {("a",)}),
        ("context.input.a has b && context.input.a.b.c == 1", {("a", "b"), ("a", "b", "c")}),
        ("context.input has a.b", {("a",), ("a", "b")}),
        ("[context.input.a, 1].contains(context.input.b)", {("a",), ("b",)}),
        ("if context.input.a then context.input.b else context.depth == 1", {("a",), ("b",)}),
        ("{x: context.input.a}.x == 1", {("a",)}),
        ("context.input.a.lessThan(context.input.b)", {("a",), ("b",)}),
        ("context.input == {a: 1}", {WHOLE_INPUT}),
        ("[context.input].contains(context.input.a)", {WHOLE_INPUT, ("a",)}),
        ("context == {input: 1}", {WHOLE_INPUT}),
        ("(if context.depth == 1 then context else {a: 1}) has input", {WHOLE_INPUT}),
        ("{a: context}.a.input.b == 1", {WHOLE_INPUT}),
        ("context has input", set()),
        ("context.depth == 1 && context has task", set()),
        ("context.history.totals.amount > 5", set()),
        ("principal.subject == resource.tenant", set()),
        ("principal has input", set()),
        ('"context.input.a" == "input"', set()),
    ],
)
def test_a_policy_reads_the_arguments_it_names_or_all_where_it_uses_the_whole(condition: str, paths: set[Any]) -> None:
    assert input_paths(when(condition)) == paths


def test_paths_are_those_of_all_conditions() -> None:
    policy = when("context.input.a == 1 } unless { context.input.b == 2")
    assert input_paths(policy) == {("a",), ("b",)}
    assert input_paths({**policy, "conditions": []}) == set()


@pytest.mark.parametrize(
    "condition",
    [
        *(f"context.input.p.{name}({ONE})" for name in ("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual")),
        f"{ONE}.lessThan(context.input.p)",
        f"context.input.p == {ONE}",
        f"{ONE} != context.input.p",
        f"[{ONE}].contains(context.input.p)",
        f"[context.input.p, {ONE}].contains(context.input.p)",
        f"context.input.p.contains({ONE})",
        f"context.input.p.containsAny([{ONE}])",
        f"[{ONE}, context.input.p].containsAll(context.input.p)",
        f"context.depth == 1 || !(context.input.p == {ONE})",
        f"(if context.input has p then context.input.p else {ONE}) == {ONE}",
        f"(if context.depth == 1 then {ONE} else context.input.p).lessThan({ONE})",
        f"{{annotations: context.input.p == {ONE}}}.annotations",
    ],
)
def test_what_is_compared_with_a_decimal_or_looked_for_among_decimals_is_one(condition: str) -> None:
    assert decimal_paths(when(condition)) == {("p",)}


@pytest.mark.parametrize(
    "condition",
    [
        "context.input.p == 1",
        "context.input.p < 1",
        "context.input.p == context.input.q",
        "[1, 2].contains(context.input.p)",
        "[1, context.input.p].contains(2)",
        f"context.input.p < {ONE}",
        "context.input.p.contains(1)",
        f"(context.input.p == 3) == ({ONE} == {ONE})",
        f"if context.input.p == 1 then {ONE} == {ONE} else true",
        f"{ONE}.lessThan({ONE})",
        f"context.input == {ONE}",
        f"context.depth == {ONE}",
        f"[[{ONE}], [context.input.p == 1]].contains([{ONE}])",
    ],
)
def test_nothing_else_is_taken_for_a_decimal(condition: str) -> None:
    assert decimal_paths(when(condition)) == set()


def test_two_that_are_ordered_as_decimals_are_both_decimals_at_any_depth() -> None:
    assert decimal_paths(when("context.input.a.b.lessThan(context.input.c)")) == {("a", "b"), ("c",)}


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (set(), {"n": 1, "f": decimal_value("0.5000"), "l": [1, "x"], "in": {"n": -2, "t": True}}),
        ({("n",)}, {"n": decimal_value("1.0"), "f": decimal_value("0.5000"), "l": [1, "x"], "in": {"n": -2, "t": True}}),
        ({("in", "n")}, {"n": 1, "f": decimal_value("0.5000"), "l": [1, "x"], "in": {"n": decimal_value("-2.0"), "t": True}}),
        ({("l",)}, {"n": 1, "f": decimal_value("0.5000"), "l": [decimal_value("1.0"), "x"], "in": {"n": -2, "t": True}}),
        (
            {("f",), ("in", "t"), ("in",), ("none",), ("n", "n", "n"), ("l", "n"), ("none", "n")},
            {"n": 1, "f": decimal_value("0.5000"), "l": [1, "x"], "in": {"n": -2, "t": True}},
        ),
    ],
)
def test_only_whole_numbers_compared_with_decimals_become_decimals(paths: set[Any], expected: Any) -> None:
    given = {"n": 1, "f": decimal_value("0.5000"), "l": [1, "x"], "in": {"n": -2, "t": True}}
    assert with_decimals(given, paths) == expected


def test_arguments_that_are_no_object_have_no_such_places() -> None:
    assert with_decimals(3, {("a",), ("a", "b")}) == 3


@pytest.mark.parametrize(
    ("condition", "paths"),
    [
        ("context.input.p == 1", {("p",)}),
        ("[1, 2].contains(context.input.p)", {("p",)}),
        (f"[1, {ONE}].contains(context.input.p)", {("p",)}),
        ("context.input.p != context.input.q", {("p",), ("q",)}),
        (f"[context.input.p, {ONE}].contains(context.input.q)", set()),
        (f"context.input.p == {ONE}", set()),
        ("context.input.p == true", set()),
        ('context.input.p == "1"', set()),
        ("context.input.p < 1", set()),  # Cedar says so itself
    ],
)
def test_what_is_looked_for_among_whole_numbers_or_other_arguments_is_known(condition: str, paths: set[Any]) -> None:
    assert non_decimal_paths(when(condition)) == paths


@pytest.mark.parametrize("given", [{"n": 4}, {"n": [1, 4]}])
def test_a_whole_number_that_is_compared_as_both_kinds_is_not_expressible(given: Any) -> None:
    with pytest.raises(NotExpressible):
        with_decimals(given, {("n",)}, {("n",)})


@pytest.mark.parametrize("given", [{"n": decimal_value("4.5000")}, {"n": "x"}, {"n": [True]}, {}, {"m": 4}])
def test_what_is_no_whole_number_is_compared_as_it_is(given: Any) -> None:
    assert with_decimals(dict(given), {("n",)}, {("n",), ("m",)}) == given


def is_roundabout(condition: str) -> bool:
    try:
        check_decimals(when(condition))
    except ValueError:
        return True
    return False


@pytest.mark.parametrize(
    "condition",
    [
        f"context.input.p == {{x: {ONE}}}",
        f"context.input == {{p: {ONE}}}",
        f"context.input.l.contains({{x: [{ONE}]}})",
        f"(if context.depth == 1 then context.input else context.input).p == {ONE}",
        f"{ONE} == (if context.depth == 1 then context else context).input.p",
        f"[{ONE}].contains({{x: context.input.p}}.x)",
    ],
)
def test_a_decimal_is_compared_with_arguments_by_their_names_alone(condition: str) -> None:
    with pytest.raises(ValueError, match="indirectly"):
        check_decimals(when(condition))


@pytest.mark.parametrize(
    "condition",
    [
        f"context.input.p.q == {ONE}",
        f"(if context.input has p then context.input.p else {ONE}) == {ONE}",
        f"[{ONE}].contains(context.input.p)",
        "context.input.p == {x: 1}",
        "(if context.depth == 1 then context.input else context.input).p == 1",
        f"{{x: context.input.p}}.x.lessThan({ONE})",  # of what is no decimal Cedar says so itself
        f"context.history.totals.amount == {ONE}",
    ],
)
def test_any_other_comparison_is_taken(condition: str) -> None:
    assert not is_roundabout(condition)
