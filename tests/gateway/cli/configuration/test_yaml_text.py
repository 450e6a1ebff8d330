"""Documents are written as YAML that reads back as the same data."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.configuration.yaml_text import write_documents
from gateway.workflows.dsl.yaml_reader import read_documents

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs",)), max_size=30)
WORDS = st.sampled_from(
    ["yes", "On", "null", "~", "1e3", "0x1f", "1_000", "12:30", "2026-01-01", "- a", "a: b", "*x", "&x", " a", "a ", "#", "'"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | TEXTS | WORDS | st.floats(allow_nan=False, allow_infinity=False, width=32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(VALUES.map(lambda value: {"spec": value}), min_size=1, max_size=3))
def test_what_is_written_reads_back_as_the_same(documents: list[dict[str, Any]]) -> None:
    assert [data for data, _ in read_documents(write_documents(documents))] == documents


@pytest.mark.parametrize("mark", ["\u202e", "\u2066", "\u200b", "\ufeff", "\U000e0041", "\x1b[2J", "\x9b2J"])
def test_a_mark_that_reorders_or_hides_text_is_escaped(mark: str) -> None:
    documents = [{f"name{mark}": f"a{mark}b", "lines": f"one\n{mark}two\n"}]
    written = write_documents(documents)
    assert not any(character in written for character in mark if not character.isascii() or not character.isprintable())
    assert [data for data, _ in read_documents(written)] == documents


@pytest.mark.parametrize("text", ["a\nb\n", "a\n\n  b", "a\n b \n", "\n\n", "a\tb\n\tc", "a\r\nb", "x: |\n  y\n"])
def test_a_text_of_several_lines_keeps_each_character(text: str) -> None:
    assert read_documents(write_documents([{"spec": {"document": text}}]))[0][0] == {"spec": {"document": text}}
