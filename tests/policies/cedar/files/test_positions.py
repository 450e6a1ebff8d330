"""Where things stand in the text of a policy file, and how much of it Cedar is given."""

import cedarpy
import pytest

from policies.cedar.files.positions import (
    BRACKETS_MAX,
    INCOMPLETE,
    OPERATORS_MAX,
    TOKENS_MAX,
    fault_line,
    first_tokens,
    line_of,
    overgrown_line,
)
from tests.house.source import ROOT

PLAIN = "permit(principal, action, resource)"


def starts(text: str) -> list[int]:
    return [token.start() for token in first_tokens(text)]


def complaint(text: str) -> str:
    try:
        cedarpy.policies_to_json_str(text)
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("", []),
        ("// only; a note", []),
        ("a;b;", [0, 2]),
        ("a; b", [0, 3]),
        ("a;\n// note; one\nb;", [0, 16]),
        ('a "x;y"; b;', [0, 9]),
        ('a "x\\";y"; b;', [0, 11]),
        ('a "x\n;" ; b;', [0, 10]),
        ("@id; b;", [0, 5]),
    ],
)
def test_a_policy_ends_at_a_semicolon_that_is_neither_in_a_comment_nor_in_a_text(text: str, places: list[int]) -> None:
    assert starts(text) == places


def test_a_policy_is_where_its_first_word_is() -> None:
    text = "// a note\na;\n\n  b\n  c; d;"
    assert [line_of(text, index) for index in range(3)] == [2, 4, 5]
    assert line_of(text, 3) == 1  # which nobody has


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{PLAIN};\n{PLAIN}\nwhen {{ 1 ++ 2 }};", 3),
        (f"{PLAIN};\n{PLAIN}\n\n\n;\nnonsense;", 6),
        (f"{PLAIN};\nforbid(principal,\n\n  action", 4),
        (f"\n{PLAIN}\n// a note =\nwhen {{ true }} &\n;", 4),
        (f"\n{PLAIN};\n{PLAIN}\n// the end", 3),
        (f"{PLAIN};", 1),
    ],
    ids=["an operator", "a word", "half a policy", "a comment is no fault", "the end", "no fault"],
)
def test_a_fault_is_where_no_policy_could_go_on(text: str, line: int) -> None:
    assert fault_line(text, complaint) == line


def test_what_is_only_incomplete_may_go_on() -> None:
    def says(text: str) -> str:
        return "bad" if "x" in text else "" if text.endswith(";") else INCOMPLETE

    assert fault_line("a\nb\nx\nc;", says) == 3
    assert fault_line("a\nb\nc", says) == 3
    assert fault_line("a;\nb;", says) == 1


def test_a_fault_far_into_a_policy_is_said_to_be_in_its_first_line() -> None:
    def says(text: str) -> str:
        return "bad" if text.rstrip(";").endswith("x") else INCOMPLETE

    assert fault_line("\n" + "a\n" * (TOKENS_MAX - 1) + "x;", says) == TOKENS_MAX + 1
    assert fault_line("\n" + "a\n" * TOKENS_MAX + "x;", says) == 2


@pytest.mark.parametrize(("opening", "closing"), ["()", "[]", "{}"])
def test_so_many_brackets_within_each_other_are_read_and_no_more(opening: str, closing: str) -> None:
    assert overgrown_line(f"a;\n{opening * BRACKETS_MAX}{closing * BRACKETS_MAX};") == 0
    assert overgrown_line(f"a;\n{opening * (BRACKETS_MAX + 1)};") == 2
    assert overgrown_line(f"{opening}{closing}" * (BRACKETS_MAX + 1)) == 0
    assert overgrown_line(f"{opening}{opening}{closing}" * (BRACKETS_MAX - 1)) == 0
    assert overgrown_line(f"{opening}{opening}{closing}" * BRACKETS_MAX) == 1
    assert overgrown_line(closing * 9 + opening * BRACKETS_MAX) == 0
    assert overgrown_line(closing * 9 + opening * (BRACKETS_MAX + 1)) == 1  # what closes nothing makes no room


@pytest.mark.parametrize(
    "operator", ["||", "&&", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "!", ".", "has", "like", "is", "in", "if", "["]
)
def test_so_many_operators_of_one_policy_are_read_and_no_more(operator: str) -> None:
    after = "]" if operator == "[" else ""
    full = f" {operator} a{after}" * OPERATORS_MAX
    assert overgrown_line(f"{full};\n{full}; {operator}") == 0
    assert overgrown_line(f"a;\na{full} {operator} a;") == 2


def test_a_comment_ends_with_its_line_also_where_that_is_an_old_one() -> None:
    assert overgrown_line(f"a // b\r{'(' * (BRACKETS_MAX + 1)}") == 1
    assert complaint("// a\r" + PLAIN + ";") == ""  # so does Cedar
    assert len(starts(f"// a\r{PLAIN};")) == 1


def test_names_and_texts_are_not_counted() -> None:
    many = ", ".join(f'Tool::"a.b({number}"' for number in range(OPERATORS_MAX + 1))
    assert overgrown_line(f"[{many}]; // {'(' * 99}") == 0


def test_the_guide_says_how_much_is_too_much() -> None:
    guide = (ROOT / "docs" / "policies.md").read_text()
    assert f"more than {BRACKETS_MAX} brackets" in guide and f"or {OPERATORS_MAX} operators and lists in one policy" in guide
