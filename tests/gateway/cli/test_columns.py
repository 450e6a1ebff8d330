"""Tables fit the screen: texts wrap at words, ids stay whole, and what has no room is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli import output as screen
from gateway.cli.output import fit_columns

FACT = "f_0192837465abcdef0192837465abcdef"
TEXT = "Prefers deliveries on Mondays, to the back door, and never before nine"
COLUMNS = ["id", "text", "written by", "updated", "sensitivity"]
ROWS = [[FACT, TEXT, "alice", "2026-11-23 13:13:51", "0"]]


@pytest.fixture
def eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.usefixtures("eighty")
def test_a_wide_table_keeps_ids_and_words_whole_at_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_table(COLUMNS, ROWS)
    shown = capsys.readouterr()
    assert max(map(len, shown.out.splitlines())) <= 80
    assert FACT in shown.out and all(word in shown.out.split() for word in (*TEXT.split(), "2026-11-23", "13:13:51"))
    assert "no room for: sensitivity" in shown.err


@pytest.mark.usefixtures("eighty")
def test_a_word_that_is_too_long_ends_in_an_ellipsis(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_table(["name", "url", "skills"], [["sales", "http://127.0.0.1:7002/" + "a" * 60, "Take an order"]])
    shown = capsys.readouterr()
    assert "…" in shown.out and "Take an order" in shown.out and shown.err == ""


@pytest.mark.usefixtures("eighty")
def test_columns_without_a_value_are_left_out_first(capsys: pytest.CaptureFixture[str]) -> None:
    screen.print_table(["id", "reason", "until", "question"], [[FACT, "", "2026-11-23 13:13:51", TEXT]])
    assert "no room for: reason;" in capsys.readouterr().err


def test_a_table_for_another_program_has_each_row_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    screen.print_table(COLUMNS, [[FACT, TEXT * 5, "alice", "2026-11-23 13:13:51", "0"]])
    shown = capsys.readouterr()
    assert any(FACT in line and TEXT * 5 in line and "13:13:51" in line for line in shown.out.splitlines())
    assert shown.err == ""


cells = st.text(alphabet="ab c\n", max_size=60)


@given(rows=st.lists(st.tuples(cells, cells, cells, cells), min_size=1, max_size=5), width=st.integers(10, 200))
def test_a_table_is_never_wider_than_the_screen_beside_its_first_column(rows: list[tuple[str, ...]], width: int) -> None:
    names = ["id", "state", "what it is about", "text"]
    widths = fit_columns(names, rows, width, len).by_index
    first = max(len(line) for row in rows for line in row[0].split("\n"))
    assert 0 in widths and widths[0] >= first
    assert sum(widths.values()) + 3 * len(widths) - 1 <= max(width, widths[0] + 2)
    if len(widths) == len(names):
        assert all(widths[index] > 0 for index in range(len(names)))
