"""What a command prints of a stranger's text: nothing in it drives the terminal, and nothing hides."""

import json

import pytest

from gateway.cli import output as screen
from gateway.cli.workflows.runs import live_lines

# Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties, which has no shape on a screen.
INVISIBLE = (
    *("00AD", "034F", "061C", "115F-1160", "17B4-17B5", "180B-180F", "200B-200F", "202A-202E", "2060-206F", "3164", "FE00-FE0F"),
    *("FEFF", "FFA0", "FFF0-FFF8", "1BCA0-1BCA3", "1D173-1D17A", "E0000-E0FFF"),
)
DRIVING = ("0-8", "B-1F", "7F-9F", "2028-2029", "2066-2069")


def characters(ranges: tuple[str, ...]) -> str:
    ends = [[int(end, 16) for end in each.split("-")] for each in ranges]
    return "".join(chr(code) for each in ends for code in range(each[0], each[-1] + 1))


@pytest.mark.parametrize("ranges", [INVISIBLE, DRIVING], ids=["invisible", "driving"])
def test_no_character_that_hides_or_drives_is_printed(ranges: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """attack REG-04, LOG-01"""
    text = characters(ranges)
    assert screen.printable(f"a{text}b") == f"a{chr(0xFFFD) * len(text)}b"
    screen.print_text(f"a{text}b")
    screen.print_table(["name"], [[f"a{character}b"] for character in text[:50]])
    screen.print_fields([("name", text)])
    screen.print_problem(text, text)
    shown = "".join(capsys.readouterr())
    assert not set(shown) & set(text) and chr(0xFFFD) in shown


@pytest.mark.parametrize("ranges", [INVISIBLE, DRIVING], ids=["invisible", "driving"])
def test_json_has_them_escaped_and_means_the_same(ranges: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    text = characters(ranges)
    screen.print_json({"name": text, text: 1})
    screen.print_json_line([text])
    shown = capsys.readouterr().out
    assert not set(shown) & set(text)
    whole, line = json.loads(shown[: shown.rindex("[")]), json.loads(shown[shown.rindex("[") :])
    assert (whole, line) == ({"name": text, text: 1}, [text])


def test_what_people_write_stays_as_it_is() -> None:
    text = "Grüße\tans Büro\n日本語 עברית العربية naïve — “quotes” 3 ½ € 👍"
    assert screen.printable(text) == text


def test_moments_of_one_thing_are_shown_as_in_tables(capsys: pytest.CaptureFixture[str]) -> None:
    moment = "2026-11-23T15:03:03.578Z"
    screen.print_fields([("created", moment), ("text", moment)])
    created, text = capsys.readouterr().out.splitlines()
    assert created.split(maxsplit=1)[1].strip() == screen.format_time(moment) != moment
    assert text.split()[1] == moment


def test_lines_that_are_watched_are_printed_once_where_no_terminal_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that shows the output of a command in colours asks for them, and is no terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with live_lines(is_quiet=False) as show_lines:
        show_lines(["order  working", "├─ ✓ stock"])
        show_lines(["order  completed", "├─ ✓ stock"])
    assert capsys.readouterr().out.count("stock") == 1
