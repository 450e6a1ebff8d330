"""One request must not cost the time of everybody's: hostile texts, hostile JSON."""

import re
from collections.abc import Iterator
from functools import partial

import pytest

from tests.attacks.pumps import Pumps, grows
from tests.house.regexes import Regex, regexes
from tests.house.source import product


def slow(regex: Regex) -> Iterator[str]:
    """What is said of each text that takes the expression more than linear time."""
    method = getattr(re.compile(regex.pattern, regex.flags), regex.method if regex.method in ("match", "fullmatch") else "findall")
    pumps = Pumps(regex)
    found = (grows(method, partial(pumps.text, way, loop)) for way, loop in pumps.loops())
    return (f"{regex.where}: {said}" for said in found if said)


def test_no_text_takes_an_expression_more_than_linear_time() -> None:  # attack AVL-01
    found, _ = regexes(product())
    unique = {(each.pattern, each.flags, each.method): each for each in found}
    assert [said for regex in unique.values() for said in slow(regex)] == []


@pytest.mark.parametrize(
    "pattern", [r"\s*tool:\s*(\S{1,128})\s*(\{.*\})?\s*", r"<\s*/?\s*(?:important|system)\b", r"eyJ[\w-]{8,}\.[\w-]+", r"x+@"]
)
def test_a_text_that_takes_more_is_found(pattern: str) -> None:  # attack AVL-01
    assert next(slow(Regex("here", pattern, re.DOTALL, "search")))
