"""Every attack of the catalogue has a test or a reason why not yet, no mark is lost, and the paper on security names them all."""

import pytest

from tests.attacks.marks import ID, MARK, Marks, find_marks, read_catalogue
from tests.house.source import ROOT, Source

KNOWN = {attack.id: attack for attack in read_catalogue()}


@pytest.fixture(scope="module")
def marks() -> Marks:
    return find_marks()


def test_every_attack_has_a_test_or_a_reason(marks: Marks) -> None:
    assert len(KNOWN) == 88
    assert {name for name, attack in KNOWN.items() if not attack.not_yet} - set(marks.tests) == set()


def test_a_reason_goes_when_the_tests_come(marks: Marks) -> None:
    assert {name for name, attack in KNOWN.items() if attack.not_yet} & set(marks.tests) == set()


def test_tests_mark_attacks_of_the_catalogue_alone(marks: Marks) -> None:
    assert set(marks.tests) - set(KNOWN) == set()
    assert marks.lost == ()


def test_the_paper_on_security_names_every_attack_and_no_other() -> None:
    assert set(ID.findall((ROOT / "docs" / "security.md").read_text(encoding="utf-8"))) == set(KNOWN)


MADE = """
import pytest

# attack TOK-01, TOK-02: in both ways
# as they come
@pytest.mark.parametrize("x", [1])
async def test_above(x): ...

def test_within(
    x,
) -> None:  # attack TOK-03
    assert x  # attacks TOK-05 and DLG-01

class TestOfAClass:
    def test_said(self):
        \"\"\"attack TEN-01: in its own words\"\"\"
"""


def test_marks_are_found_above_within_and_in_a_docstring() -> None:
    above, within, said = (f"tests/test_x.py::{name}" for name in ("test_above", "test_within", "TestOfAClass::test_said"))
    found = find_marks((Source("tests/test_x.py", MADE),))
    wanted = {"TOK-01": above, "TOK-02": above, "TOK-03": within, "TOK-05": within, "DLG-01": within, "TEN-01": said}
    assert found.tests == {name: (test,) for name, test in wanted.items()}
    assert found.lost == ()


@pytest.mark.parametrize("text", ["# attack TOK-01\nNAMES = []\n\ndef test_x(): ...\n", "def helper():  # attack TOK-01\n    pass\n"])
def test_a_mark_of_no_test_is_lost(text: str) -> None:
    assert MARK.search(text)
    assert len(find_marks((Source("tests/test_x.py", text),)).lost) == 1
