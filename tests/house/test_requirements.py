"""The manifest of requirements says what is true: of the page that is published, and of the tests that there are."""

import ast
import re

import pytest

from tests.conformance.papers import own_tests
from tests.house.limits import Function
from tests.house.source import ROOT
from tests.requirements import REQUIREMENTS

ROW = re.compile(r"^\| ([A-Z_]+(?:-[A-Z]+)+-\d+a?) \| (MUST|SHOULD|MAY) \| ([\d.]+) \|(.*)$", re.MULTILINE)
TRIED, UNTRIED = "### Every requirement", "### Not tested by the kit"


def published() -> dict[str, tuple[str, str, bool, str]]:
    """Level, clause, whether the kit tries it, and what else stands in the row, of every requirement of A2A 1.0."""
    page = (ROOT / "docs" / "conformance.md").read_text()
    newer = page[page.index("## A2A 1.0") : page.index("## A2A 0.3")]
    found = {}
    for title in (TRIED, UNTRIED):
        part = newer[newer.index(title) + len(title) :].partition("\n### ")[0]
        found |= {name: (level, clause, title == TRIED, rest) for name, level, clause, rest in ROW.findall(part)}
    return found


def test_the_manifest_is_of_every_requirement_that_is_published() -> None:
    assert {one.id: (one.level, one.section, one.kit) for one in REQUIREMENTS} == {name: row[:3] for name, row in published().items()}
    assert len(REQUIREMENTS) == len({one.id for one in REQUIREMENTS}) > 120


def test_what_the_kit_leaves_out_is_shown_by_tests_of_our_own_that_the_page_names() -> None:
    rows = published()
    for one in REQUIREMENTS:
        if not one.kit:
            assert one.tests and rows[one.id][3].endswith(f"| {own_tests(one.id)} |"), one.id


@pytest.mark.parametrize("test", sorted({test for one in REQUIREMENTS for test in one.tests}))
def test_a_test_that_is_named_is_there(test: str) -> None:
    path, *_, name = test.split("::")
    tree = ast.parse((ROOT / "tests" / path).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, Function)}
