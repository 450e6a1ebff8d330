"""Docstrings refer to what exists, and their lines are filled."""

from tests.house.docstrings import missing_references, one_word_lines
from tests.house.source import Source, product


def test_what_a_docstring_names_exists() -> None:
    assert len(product()) > 100
    assert missing_references(product()) == []


def test_a_missing_file_or_member_is_found() -> None:
    text = '"""See gateway/none.py, Store.gone, Store.read, Child.read and gateway/__main__.py."""\nclass Store:\n    def read(self): ...\n'
    found = missing_references([Source("gateway/x.py", f"{text}class Child(Store): ...\n")])
    assert [line.rpartition(": ")[2] for line in found] == ["gateway/none.py does not exist", "Store.gone does not exist"]


def test_no_line_of_a_docstring_has_one_word() -> None:
    assert len(product()) > 100
    assert one_word_lines(product()) == []


def test_a_line_of_one_word_is_found_within_a_paragraph_only() -> None:
    broken = Source("gateway/x.py", '"""A sentence.\n\nOne two\nthree\nfour five.\n\nAlone\n"""\n')
    assert one_word_lines([broken]) == ["gateway/x.py:4: the line has one word: three"]
