"""Arguments as Cedar sees them: every value that is kept is the caller's, and what can't be kept is no value."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.cedar.argument_types import RESERVED
from policies.cedar.values import NotExpressible, cedar_value, decimal_value

LONG_MAX = 9_223_372_036_854_775_807


def decimal(digits: str) -> dict[str, Any]:
    return {"__extn": {"fn": "decimal", "arg": digits}}


@pytest.mark.parametrize(
    "value", [True, False, "", "a", "__extn", 0, 1, -1, LONG_MAX, -LONG_MAX - 1, [], {}, {"a": [1, {"b": "c"}]}, {"fn": "decimal"}]
)
def test_what_cedar_knows_as_json_does_stays_as_it_is(value: Any) -> None:
    kept = cedar_value(value)
    assert kept == value and type(kept) is type(value)


@pytest.mark.parametrize(
    ("value", "digits"),
    [
        (0.5, "0.5000"),
        (-2.25, "-2.2500"),
        (0.1234, "0.1234"),
        (1e-4, "0.0001"),
        (-0.0001, "-0.0001"),
        (123456789012.3, "123456789012.3000"),
    ],
)
def test_a_fraction_is_a_decimal_with_four_digits(value: float, digits: str) -> None:
    assert cedar_value(value) == decimal(digits) == decimal_value(digits)


@pytest.mark.parametrize(("value", "whole"), [(4.0, 4), (-3.0, -3), (1e2, 100), (-0.0, 0), (-(2.0**63), -LONG_MAX - 1)])
def test_a_whole_number_is_a_long_however_it_is_written(value: float, whole: int) -> None:
    kept = cedar_value(value)
    assert kept == whole and type(kept) is int


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (LONG_MAX + 1, "64 bits"),
        (-LONG_MAX - 2, "64 bits"),
        (2.0**63, "64 bits"),
        (1e300, "64 bits"),
        (0.12345, "four digits"),
        (1e-5, "four digits"),
        (math.nan, "four digits"),
        (math.inf, "four digits"),
        (-math.inf, "four digits"),
        (object(), "object is not JSON"),
        (b"x", "bytes is not JSON"),
        *(({name: 1}, "reserves") for name in ("__entity", "__extn", "__expr")),
    ],
)
def test_what_can_not_be_compared_faithfully_is_refused_at_any_depth(value: Any, why: str) -> None:
    for holder in (value, [value], {"a": 1, "b": [{"c": value}]}):
        with pytest.raises(NotExpressible, match=why):
            cedar_value(holder)


def test_nulls_are_left_out_wherever_they_are_and_alone_are_no_value() -> None:
    with pytest.raises(NotExpressible, match="NoneType"):
        cedar_value(None)
    assert cedar_value({"a": None, "b": [None, 1, None, [None]], "c": {"d": None}}) == {"b": [1, []], "c": {}}


def test_a_tuple_is_a_list() -> None:
    assert cedar_value((1, None, (0.5,))) == [1, [decimal("0.5000")]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(sorted(RESERVED)), inner),
)


@given(JSON)
def test_only_this_module_says_that_something_is_an_extension(value: Any) -> None:
    """Whatever comes in, an object with a reserved name that comes out is one of our decimals."""
    try:
        kept = cedar_value({"a": value})
    except NotExpressible:
        return
    todo = [kept]
    while todo:
        found = todo.pop()
        if isinstance(found, dict) and not RESERVED.isdisjoint(found):
            assert list(found) == ["__extn"] and found["__extn"]["fn"] == "decimal"
        elif isinstance(found, dict):
            todo += found.values()
        elif isinstance(found, list):
            todo += found
        assert found is not None
