"""No regular expression of the product takes more than linear time, and the analysis that says so finds those that do."""

import re

import pytest

from tests.house.backtracking import growth
from tests.house.regexes import Regex, regexes
from tests.house.source import Source, product

# Expressions that the analysis does not follow, with the reason why they are linear all the same.
EXCEPTIONS = {
    r"(?s)\bSELECT\b(?:": "400 characters behind a word, and never past the next such word",
    r"(?is)\bselect\b(?:": "400 characters behind a word, and never past the next such word",
}


def _excepted(regex: Regex) -> bool:
    return any(str(regex.pattern).startswith(beginning) for beginning in EXCEPTIONS)


def test_every_expression_takes_linear_time() -> None:
    found, _ = regexes(product())
    problems = {
        f"{each.where}: {reason}" for each in found if not _excepted(each) and (reason := growth(each.pattern, each.flags, each.method))
    }
    assert problems == set()


def test_every_expression_is_found() -> None:
    found, unknown = regexes(product())
    assert unknown == []
    assert len(found) > 100
    places = {each.where for each in found}
    held = {
        "registry.drift.suspicions._MODEL_ORDERS",
        "gateway.ingress.a2a_server.bindings.rest_paths._V1",
    }  # by a name, in a list
    assert held <= places
    assert any(place.startswith("registry/names.py:") for place in places)  # inside a function


def test_expressions_are_made_by_the_module_re_alone() -> None:
    assert [
        source.path for source in product() if re.search(r"^(?:from (?:re|regex|re2)\b|import (?:regex|re2)\b)", source.text, re.MULTILINE)
    ] == []


def test_every_exception_is_needed() -> None:
    found, _ = regexes(product())
    needed = {beginning for beginning in EXCEPTIONS for each in found if str(each.pattern).startswith(beginning)}
    assert needed == set(EXCEPTIONS)
    assert all(growth(each.pattern, each.flags, each.method) for each in found if _excepted(each))


SLOW = [
    (r"(a+)+$", "search"),
    (r"(a*)*b", "match"),
    (r"(?:a{0,61})*b", "match"),
    (r"(?:a{1,61})*b", "match"),
    (r"(a|a)*b", "fullmatch"),
    (r"(?:a|ab|b)*c", "fullmatch"),
    (r"(?:.*,)*x", "match"),
    (r"(?:(?>a+)a?)*b", "match"),
    (r"(?:(?:a*b)?a)*", "match"),
    (r"\s*x?\s*y", "fullmatch"),
    (r"a*a*b", "match"),
    (r"a*(?=.*b)", "match"),
    (r"\{.*\}.*x", "match"),
    (r"\w+@", "search"),
    (r"\s+$", "search"),
    (r"(?:a*b)?", "finditer"),
    (r"a*+b", "search"),
    (r'"(?:[^"\\]|\\.)*"', "search"),
    (r"eyJ[\w-]{8,}\.", "search"),
    (r"<\s*/?\s*(?:important|system)\b", "search"),
    (r"\s*tool:\s*(\S{1,128})\s*(\{.*\})?\s*", "fullmatch"),
]


@pytest.mark.parametrize(("pattern", "method"), SLOW)
def test_an_expression_that_takes_more_is_found(pattern: str, method: str) -> None:
    assert growth(pattern, re.DOTALL, method)
    assert growth(pattern.encode(), re.DOTALL, method)


LINEAR = [
    (r"\w+", "fullmatch"),
    (r"[^\W_]+", "finditer"),
    (r"(a+)+", "match"),
    (r"a*b*c*", "fullmatch"),
    (r"a{1,64}b", "search"),
    (r"(?:[a-z]+\.)*[a-z]+", "fullmatch"),
    (r"\s*+x\s*+", "fullmatch"),
    (r"\b\w*pass", "search"),
    (r"(?<![a-z])[a-z]*+b", "search"),
    (r'"(?:[^"\\]|\\.)*+"?', "finditer"),
    (r"(?s)a(.*)(.*)", "fullmatch"),
    (r"(?<![\w-])(?>[\w-]*?eyJ)[\w-]{8,}+\.", "search"),
    (r"[A-Z]?[a-z]+|[A-Z](?:[A-Z](?![a-z]))*", "finditer"),
    (r"(?m)^[^\n]*x$", "search"),
]


@pytest.mark.parametrize(("pattern", "method"), LINEAR)
def test_a_linear_expression_passes(pattern: str, method: str) -> None:
    assert growth(pattern, 0, method) is None


def made(text: str) -> Source:
    return Source("gateway/server/health.py", "import re\n" + text)


def test_expressions_inside_functions_are_found_with_their_method() -> None:
    found, unknown = regexes(
        (made('def f(x):\n    return re.sub(r"a+", "", x, flags=re.I), re.compile(f"{re.escape(x)}b*").fullmatch(x)\n'),)
    )
    assert {(each.pattern, each.method) for each in found} == {("a+", "sub"), ("xb*", "search")}
    assert {each.flags for each in found} == {re.IGNORECASE, 0}
    assert unknown == []


def test_an_expression_that_is_made_of_an_argument_is_told() -> None:
    _, unknown = regexes((made("def f(x, y):\n    return re.search(x, y)\n"),))
    assert unknown == ["gateway/server/health.py:3"]
