"""Texts on pages of the console: what indents make of JSON from others."""

import json

import pytest

from gateway.ingress.console.rendering import INDENTED_DEPTH, INDENTED_MAX, indent_json


def nested(depth: int, times: int = 1) -> str:
    return "[" + ",".join(["[" * (depth - 1) + "]" * (depth - 1)] * times) + "]"


def test_json_is_indented_as_it_was_written() -> None:
    assert indent_json('{"a":1.0,"a":["[{",{}]}') == '{\n  "a": 1.0,\n  "a": [\n    "[{",\n    {}\n  ]\n}'


@pytest.mark.parametrize("text", ["plain [text", '{"cut": ["off', '"\\ud800', "[}", '"' + '\\"' * 100_000, "[1]" + " " * INDENTED_MAX])
def test_what_is_no_json_or_too_long_stays_as_it_is(text: str) -> None:
    assert indent_json(text) == text


def test_json_whose_indents_would_be_far_longer_than_itself_is_not_indented() -> None:
    """An agent that answers with 64 KB of brackets had the gateway write 60 MB each quarter of a second."""
    assert json.loads(indent_json(nested(INDENTED_DEPTH))) == json.loads(nested(INDENTED_DEPTH))
    assert "\n" in indent_json(nested(INDENTED_DEPTH))
    deep = nested(450, times=70)
    assert indent_json(deep) == deep
