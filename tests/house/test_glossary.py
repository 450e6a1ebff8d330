"""The glossary is complete and sorted, and each of its words is in use."""

import pytest

from tests.house.glossary import Entry, entries_of, is_used
from tests.house.source import ROOT, product

GLOSSARY = ROOT / "docs" / "glossary.md"
ENTRIES = entries_of(GLOSSARY.read_text())


def test_there_are_few_words_in_their_order() -> None:
    words = [entry.word.lower() for entry in ENTRIES]
    assert 25 <= len(words) <= 70
    assert words == sorted(set(words))


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.word)
def test_each_word_is_explained_and_is_used_by_the_code(entry: Entry) -> None:
    assert len(entry.meaning) > 30 and entry.meaning.endswith(".")
    assert len(entry.origin) > 3
    assert any(is_used(entry.word, source.text) for source in product())


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md"])
def test_the_entry_pages_link_the_glossary(page: str) -> None:
    assert "(docs/glossary.md)" in (ROOT / page).read_text()


@pytest.mark.parametrize("text", ["a hop token", "hop_tokens = 1", "class HopToken:", "a Hop-token"])
def test_a_word_is_found_in_all_its_spellings(text: str) -> None:
    assert is_used("hop token", text)
    assert not is_used("hop token", "a workshop token, a hop, a token")


@pytest.mark.parametrize("row", ["| **b** | means |", "| b | means | Interlock |", "| **b** | means | from | more |"])
def test_a_row_of_another_form_is_refused(row: str) -> None:
    table = "| word | what | where |\n|---|---|---|\n| **a** | means | Interlock |\n"
    assert entries_of(table) == [Entry("a", "means", "Interlock")]
    with pytest.raises(ValueError, match="a row"):
        entries_of(f"{table}{row}\n")
