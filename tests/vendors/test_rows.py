"""The table and the file of a run say what passed against what, and what did not and why."""

import pytest

from tests.vendors.__main__ import main
from tests.vendors.rows import RECORDING, SERVER, WHY_MAX, Row, table

ROWS = [Row("langgraph", "send", SERVER), Row("langgraph", "cancel", SERVER, "it went on"), Row("adk", "run", RECORDING)]


def test_a_row_says_what_was_held_against_what() -> None:
    first, second, third = (row.document() for row in ROWS)
    assert first == {"vendor": "langgraph", "scenario": "send", "against": "server", "outcome": "pass", "why": ""}
    assert (second["outcome"], second["why"]) == ("fail", "it went on")
    assert third["against"] == "recording"
    assert len(Row("adk", "run", RECORDING, "x" * 10_000).document()["why"]) == WHY_MAX


def test_the_table_counts_and_ends_with_what_failed() -> None:
    lines = table(ROWS).splitlines()
    assert [line.split() for line in lines[1:3]] == [["langgraph", "server", "1", "1"], ["adk", "recording", "1", "0"]]
    assert lines[3:] == ["FAILED langgraph cancel (server): it went on"]


def test_words_that_it_does_not_take_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--all"]) == 2
    assert "usage" in capsys.readouterr().err
