"""JSON Schemas that agents and operators write: values are checked in bounded time, and no pattern of a schema is ever run."""

import re
from typing import Any

import pytest

from gateway.tasks.contracts.json_schema import DEPTH_MAX, SIZE_MAX, BadSchema, BrokenRule, check_schema, find_broken_rule, problem_of

SLOW = "^(a+)+$"  # with 40 letters it takes a backtracking engine hours
TEXT = "a" * 40 + "!"


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": SLOW}, TEXT),
        ({"patternProperties": {SLOW: {"type": "null"}}}, {TEXT: 1}),
        ({"patternProperties": {SLOW: {}}, "additionalProperties": False}, {TEXT: 1}),
        ({"patternProperties": {SLOW: {}}, "unevaluatedProperties": False}, {TEXT: 1}),
        ({"allOf": [{"patternProperties": {SLOW: {}}}], "unevaluatedProperties": False}, {TEXT: 1}),
    ],
    ids=["pattern", "patternProperties", "additionalProperties", "unevaluatedProperties", "allOf"],
)
def test_no_keyword_runs_a_pattern_of_the_schema(
    schema: dict[str, Any], value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:  # attack AVL-01
    def search(pattern: str, text: str) -> None:
        raise AssertionError(f"{pattern} was run")

    monkeypatch.setattr(re, "search", search)
    assert find_broken_rule(schema, value) is None


@pytest.mark.parametrize("keyword", ["additionalProperties", "unevaluatedProperties"])
def test_members_beyond_the_named_ones_are_refused_where_no_pattern_names_any(keyword: str) -> None:
    schema = {"properties": {"sku": {"type": "string"}}, keyword: False}
    assert problem_of(schema, {"sku": "7"}) == ""
    assert problem_of(schema, {"sku": "7", "price": 3}) == f"$ breaks the rule `{keyword}`"


def test_the_path_of_a_broken_rule_begins_at_the_value() -> None:
    schema = {"properties": {"lines": {"items": {"type": "integer"}}}}
    assert find_broken_rule(schema, {"lines": [1, "two"]}) == BrokenRule("$.lines[1]", "type", '"integer"')


@pytest.mark.parametrize(
    ("schema", "value", "text"),
    [
        ({"required": ["sku", "price"]}, {"price": 1}, "breaks the rule `required` (missing: `sku`)"),
        ({"required": [f"m{number:02}" for number in range(12)]}, {"m00": 1, "m11": 1}, "`m10`)"),
        ({"required": [f"m{number:02}" for number in range(12)]}, {}, "`m09`, …)"),
        ({"minimum": 1}, 0, "breaks the rule `minimum` (1)"),
        ({"enum": ["a", "b"]}, "secret", 'breaks the rule `enum` (["a","b"])'),
        ({"enum": ["a" * 300]}, "secret", "aaa…)"),
        ({"additionalProperties": False}, {"secret": 1}, "breaks the rule `additionalProperties`"),
        ({"not": {}}, "secret", "breaks the rule `not`"),
    ],
)
def test_a_broken_rule_says_what_it_wants_and_quotes_no_value(schema: dict[str, Any], value: Any, text: str) -> None:
    broken = find_broken_rule(schema, value)
    assert broken is not None and broken.text.endswith(text)
    assert "secret" not in broken.text and len(broken.text) < 200


def test_a_schema_whose_references_double_at_each_step_is_refused() -> None:
    steps = {f"a{step}": {"allOf": [{"$ref": f"#/$defs/a{step + 1}"}] * 2} for step in range(30)}
    schema = {"$defs": {**steps, "a30": {"type": "object"}}, "$ref": "#/$defs/a0"}
    with pytest.raises(BadSchema, match="too much of itself"):
        check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "text"}, "is no JSON Schema"),
        ({"$ref": "https://example.com/schema.json"}, "never fetched"),
        ({"$ref": "#/$defs/absent"}, "refers to what is not there"),
        ({"$ref": "#"}, "too much of itself"),
        ({"description": "x" * SIZE_MAX}, "is larger than"),
    ],
    ids=["type", "remote", "absent", "endless", "large"],
)
def test_a_schema_that_can_not_be_followed_is_refused_with_the_reason(schema: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadSchema, match=problem):
        check_schema(schema)


def test_a_schema_may_have_only_so_many_levels() -> None:
    schema: dict[str, Any] = {}
    for _ in range(DEPTH_MAX + 1):
        schema = {"not": schema}
    with pytest.raises(BadSchema, match="is deeper than"):
        check_schema(schema)
    check_schema(schema["not"])
