"""Search mode finds the right one of more than a thousand real operations, better than plain rankings do."""

from typing import Any

import pytest

from tests.search.operations import tools
from tests.search.questions import QUESTIONS
from tests.search.rankings import Score, fts5, ours, plain_bm25, score

FIRST, AMONG_FIVE = 0.60, 0.85  # shares of the questions


@pytest.fixture(scope="module")
def operations() -> list[dict[str, Any]]:
    return tools()


@pytest.fixture(scope="module")
def found(operations: list[dict[str, Any]]) -> Score:
    return score(ours(operations))


def test_there_is_something_to_find(operations: list[dict[str, Any]]) -> None:
    names = {tool["name"] for tool in operations}
    assert len(operations) > 1000 and len(QUESTIONS) == 40
    assert [question for question, right in QUESTIONS.items() if not set(right) <= names] == []


def test_the_right_operation_is_first_for_most_questions(found: Score) -> None:
    assert found.first >= FIRST * found.questions


def test_the_right_operation_is_nearly_always_among_five(found: Score) -> None:
    assert found.among_five >= AMONG_FIVE * found.questions


@pytest.mark.parametrize("other", [plain_bm25, fts5])
def test_plain_rankings_find_less(operations: list[dict[str, Any]], found: Score, other: Any) -> None:
    plain = score(other(operations))
    assert found.first > plain.first + 2 and found.among_five > plain.among_five + 2
