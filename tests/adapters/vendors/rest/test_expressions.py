"""Expressions of operators: what they find and put, and that none makes much of little."""

from typing import Any

import pytest

from adapters.vendors.rest.expressions import BadExpression, check_pointer_fits, compile_expression, fill_template

VALUE = {"a": [{"b": 1, "tags": ["x"]}, {"b": 2, "tags": []}], "": "empty", "m~n/o": "odd", "none": None}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", VALUE),
        ("/", "empty"),
        ("/a/1/b", 2),
        ("/a/01/b", None),
        ("/a/-/b", None),
        ("/a/2", None),
        ("/a/b", None),
        ("/m~0n~1o", "odd"),
        ("/none", None),
        ("/none/x", None),
        ("a[?contains(tags, 'x')].b | [0]", 1),
        ("a[].{n: b}", [{"n": 1}, {"n": 2}]),
        ("nothing.at.all", None),
        ("length(none)", None),
    ],
)
def test_a_place_is_found_or_nothing(text: str, found: Any) -> None:
    assert compile_expression(text)(VALUE) == found


@pytest.mark.parametrize(
    "text",
    [
        "a ||",
        "/a~2",
        "x" * 501,
        "(" * 400,
        "nosuch(a)",
        "to_string(to_string(a))",
        "join(a, b)",
        "join('" + "-" * 17 + "', a)",
        "[@, @] | [@, @] | [@, @] | [@, @]",
        " || ".join("abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz"),
    ],
)
def test_what_is_none_or_costs_too_much_is_refused_when_it_is_read(text: str) -> None:
    with pytest.raises(BadExpression):
        compile_expression(text)


def test_only_declared_places_are_filled_and_what_finds_nothing_leaves_them() -> None:
    template = {"text": "{text}", "list": [{"x": 1}], "kept": "here"}
    places = {"/list/0/x": "text", "/new/deep": "who", "/kept": "nobody"}
    made = fill_template(template, places, {"text": '{who} "} $(id)', "who": ["ada"]})
    assert made == {"text": "{text}", "list": [{"x": '{who} "} $(id)'}], "kept": "here", "new": {"deep": ["ada"]}}
    assert template == {"text": "{text}", "list": [{"x": 1}], "kept": "here"}


@pytest.mark.parametrize("pointer", ["/text/x", "/list/1", "/list/-", "text", "/a~3"])
def test_a_place_that_is_none_is_refused(pointer: str) -> None:
    with pytest.raises(BadExpression):
        check_pointer_fits({"text": "t", "list": [1]}, pointer)
